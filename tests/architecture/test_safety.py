"""No file, however made, gets code of its own executed (SECURITY.md)."""

from __future__ import annotations

import ast

from tests.architecture.source import dotted, modules, report

NEVER = {
    "eval", "exec", "__import__", "os.system", "os.popen",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all",
    "torch.hub.load", "joblib.load",
}  # fmt: skip


# Between our own processes, through pipes that nobody else holds: what multiprocessing does.
OWN_PIPES = ("data.processes",)


def test_nothing_is_executed_from_a_file():
    faults = []
    for module in modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func)
            options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if name == "pickle.loads" and module.within(*OWN_PIPES):
                continue
            if name in NEVER:
                faults.append(f"{module.at(node.lineno)} calls {name}")
            elif name == "torch.load" and options.get("weights_only") is not True:
                faults.append(f"{module.at(node.lineno)} torch.load without weights_only=True")
            elif name in {"np.load", "numpy.load"} and options.get("allow_pickle"):
                faults.append(f"{module.at(node.lineno)} numpy.load with allow_pickle")
            elif options.get("shell") is True:
                faults.append(f"{module.at(node.lineno)} {name} through a shell")
    assert not faults, report(faults)


def test_pickle_is_not_imported_as_bare_names():
    faults = [
        f"{module.at(item.line)} imports {item.target}; it hides what is called"
        for module in modules()
        for item in module.imports
        if item.target in {f"pickle.{name}" for name in ("load", "loads", "Unpickler", "_Unpickler")}
    ]
    assert not faults, report(faults)
