"""The doors are alike: one table, one contract, one file for each occupant (DESIGN 2)."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.source import Module, by_name, imported_module, modules, report

# Door -> modules of it that higher layers may import. Occupants are asked from the table, never imported.
DOORS = {
    "anyolo.devices": {"base", "emulation", "distributed", "host_memory", "scaling"},
    "anyolo.data.formats": {"base"},
    "anyolo.families": {"base", "checkpoints", "conversion", "folded"},
    "anyolo.export": {"base", "engine", "manifest"},
}


def table_of(door: Module) -> dict[str, str]:
    """name -> "module:object" of the one ``Registry(kind, {...})`` in a door's ``__init__``."""
    tables = [
        node.args[1]
        for node in ast.walk(door.tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Registry" and len(node.args) > 1
    ]
    assert len(tables) == 1, (
        f"{door.at(1)} holds {len(tables)} tables; a door has one: Registry(kind, {{...}})"
    )
    table = ast.literal_eval(tables[0])
    assert isinstance(table, dict)
    return table


def test_the_table_is_readable_from_source():
    assert "cpu" in table_of(by_name()["anyolo.devices"])


@pytest.mark.parametrize("name", DOORS)
def test_a_door_has_a_table_and_a_contract(name):
    assert table_of(by_name()[name])
    assert f"{name}.base" in by_name(), f"{name} has no base.py with its contract"


@pytest.mark.parametrize("name", DOORS)
def test_every_entry_is_one_file_with_the_object_it_promises(name):
    faults = []
    homes = {}
    for entry, place in table_of(by_name()[name]).items():
        module, _, attribute = place.partition(":")
        homes.setdefault(module, []).append(entry)
        if module not in by_name() or module.rpartition(".")[0] != name:
            faults.append(f"{name}: {entry!r} lives in {module!r}, which is no file of the door")
        elif attribute not in defined(by_name()[module]):
            faults.append(f"{name}: {entry!r} promises {attribute!r}, which {module} does not define")
    faults += [
        f"{name}: {module} holds several occupants: {who}" for module, who in homes.items() if len(who) > 1
    ]
    inside = {m.name for m in modules() if m.name.rpartition(".")[0] == name}
    used = {imported_module(item.target) for module in modules() for item in module.imports}
    strangers = inside - set(homes) - used - {f"{name}.base"}
    faults += [
        f"{by_name()[stranger].at(1)} is not in the table and nobody imports it" for stranger in strangers
    ]
    assert not faults, report(faults)


def test_nobody_reaches_past_a_door():
    faults = []
    for module in modules():
        for item in module.imports:
            for door, shared in DOORS.items():
                entry = item.target.removeprefix(f"{door}.").partition(".")[0]
                occupant = (
                    item.target.startswith(f"{door}.")
                    and f"{door}.{entry}" in by_name()
                    and entry not in shared
                )
                if occupant and module.name != door and not module.name.startswith(f"{door}."):
                    faults.append(f"{module.at(item.line)} imports {item.target}; ask the table of {door}")
    assert not faults, report(faults)


def test_nobody_inside_a_door_imports_an_occupant():
    faults = []
    for door in DOORS:
        occupants = {place.partition(":")[0] for place in table_of(by_name()[door]).values()}
        for module in modules():
            if not module.name.startswith(f"{door}."):
                continue
            for item in module.imports:
                other = next(
                    (o for o in occupants if item.target == o or item.target.startswith(f"{o}.")), None
                )
                if other and other != module.name:
                    faults.append(f"{module.at(item.line)} imports the occupant {other}")
    assert not faults, report(faults)


def defined(module: Module) -> set[str]:
    """Names bound at the top level of ``module``."""
    names: set[str] = set()
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names
