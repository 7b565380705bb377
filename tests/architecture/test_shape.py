"""Small files, small functions, names that say something, one printer, nothing at import (DESIGN 2)."""

from __future__ import annotations

import ast

from tests.architecture.source import by_name, dotted, modules, report

MOST_FILE_LINES = 500  # aim at 400
MOST_FUNCTION_LINES = 80  # aim at 60
EMPTY_NAMES = {"utils", "util", "tools", "tool", "helpers", "helper", "common", "misc", "stuff", "lib"}
# What runs on import: definitions, tables, and imports that may be absent. Nothing that does work.
QUIET = (
    *(ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Assign, ast.AnnAssign, ast.If, ast.Try),
)

# One training step, from the batch to the updated weights, readable in one sitting.
STEP = ("anyolo.train.step", "anyolo.assign.tal", "anyolo.loss.dfl", "anyolo.loss.terms", "anyolo.train.ema")


def test_files_are_small():
    faults = [
        f"{module.at(1)} has {lines} lines > {MOST_FILE_LINES}; split it"
        for module in modules()
        if (lines := module.text.count("\n")) > MOST_FILE_LINES
    ]
    assert not faults, report(faults)


def test_functions_are_small():
    faults = []
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    faults.append(
                        f"{module.at(node.lineno)} {node.name} has {lines} lines > {MOST_FUNCTION_LINES}"
                    )
    assert not faults, report(faults)


def test_modules_are_named_for_what_they_hold():
    faults = [module.at(1) for module in modules() if EMPTY_NAMES & set(module.name.split("."))]
    assert not faults, report(faults)


def test_every_module_with_code_says_what_it_is_for():
    faults = [
        f"{module.at(1)} has no docstring"
        for module in modules()
        if module.tree.body and not ast.get_docstring(module.tree)
    ]
    assert not faults, report(faults)


def test_only_the_console_prints():
    faults = []
    for module in modules():
        if module.within("console", "cli"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and dotted(node.func) in {
                "print",
                "sys.stdout.write",
                "sys.stderr.write",
            }:
                faults.append(f"{module.at(node.lineno)} prints; use anyolo.console.current()")
    assert not faults, report(faults)


def test_nothing_happens_at_import():
    faults = []
    for module in modules():
        for node in module.tree.body:
            doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            main = module.name.endswith("__main__")
            if not (doc or main or isinstance(node, QUIET)):
                faults.append(f"{module.at(node.lineno)} runs at import: {ast.unparse(node)[:60]}")
    assert not faults, report(faults)


def test_nobody_changes_the_environment():
    faults = []
    for module in modules():
        for node in ast.walk(module.tree):
            targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
            written = [t for t in targets if isinstance(t, ast.Subscript) and dotted(t.value) == "os.environ"]
            called = isinstance(node, ast.Call) and dotted(node.func) in {
                "os.putenv", "os.environ.setdefault", "os.environ.update", "os.environ.pop",
            }  # fmt: skip
            if written or called:
                faults.append(f"{module.at(node.lineno)} changes os.environ; pass a value instead")
    assert not faults, report(faults)


def test_one_training_step_can_be_read_in_one_sitting():
    lines = sum(by_name()[name].text.count("\n") for name in STEP)
    assert len(STEP) <= 5
    assert lines <= 450, f"{lines} lines in {STEP}"
