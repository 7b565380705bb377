"""The package as text: what each module is called, imports and contains. Nothing of it is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "anyolo"


@dataclass(frozen=True)
class Import:
    """One imported name: ``target`` is ``a.b.c`` for ``import a.b.c`` and for ``from a.b import c``."""

    line: int
    target: str
    for_types_only: bool = False

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


@dataclass(frozen=True)
class Module:
    name: str
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def layer(self) -> str:
        """The room or single module right below ``anyolo``; empty for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT).as_posix()}:{line}"

    def within(self, *places: str) -> bool:
        """Whether this module is one of ``places`` (dotted, below anyolo) or inside one."""
        return any(
            self.name == f"anyolo.{place}" or self.name.startswith(f"anyolo.{place}.") for place in places
        )

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import, also those in functions and under TYPE_CHECKING."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[Import]:
        guarded = {
            id(inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name, id(node) in guarded)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    yield Import(node.lineno, f"{base}.{alias.name}", id(node) in guarded)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.name.split(".")[: None if self.is_package else -1]
        package = package[: len(package) - node.level + 1]
        return ".".join([*package, node.module] if node.module else package)

    def strings(self) -> Iterator[tuple[int, str]]:
        """Every string literal with its line, docstrings left out."""
        docs = set()
        for node in ast.walk(self.tree):
            if (
                isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
                and node.body
            ):
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                    docs.add(id(first.value))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                yield node.lineno, node.value


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return tuple(found)


@cache
def by_name() -> dict[str, Module]:
    return {module.name: module for module in modules()}


def imported_module(target: str) -> str | None:
    """The module of ours that an import of ``a.b.c`` reads: itself, or ``a.b`` when c is a name in it."""
    if target in by_name():
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in by_name() else None


def dotted(node: ast.AST) -> str:
    """``a.b.c`` for an attribute chain, empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def report(faults: list[str]) -> str:
    return "\n" + "\n".join(sorted(set(faults)))
