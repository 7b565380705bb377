"""A table from a name to an object: spellings, aliases, plug-ins, suggestions, and nothing imported early."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from anyolo import registry
from anyolo.errors import UnknownName
from anyolo.registry import Registry

TABLE = {"v5lite-e": "json:loads", "other": "no_such_module_anywhere:thing"}


def test_names_are_found_in_any_spelling():
    table = Registry("thing", TABLE, aliases={"lite": "v5lite-e"})
    for written in ("v5lite-e", "V5Lite_E", "LITE"):
        assert table.resolve(written) == "v5lite-e"
        assert written in table
    assert list(table) == ["v5lite-e", "other"]


def test_an_object_is_imported_when_asked_for():
    table = Registry("thing", {**TABLE, "late": "colorsys:rgb_to_hsv"})
    sys.modules.pop("colorsys", None)
    assert "late" in table
    assert "colorsys" not in sys.modules
    assert table.get("late")(1.0, 0.0, 0.0) == (0.0, 1.0, 1.0)


def test_an_unknown_name_is_suggested_from_names_and_aliases():
    table = Registry("thing", TABLE, aliases={"light": "v5lite-e"})
    assert "nothing" not in table
    with pytest.raises(UnknownName, match="unknown thing 'lihgt'") as caught:
        table.get("lihgt")
    assert "'light'" in caught.value.hint


def test_other_packages_add_occupants_but_cannot_replace_ours(monkeypatch):
    points = [
        EntryPoint("mine", "json:dumps", "anyolo.thing"),
        EntryPoint("other", "json:dumps", "anyolo.thing"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "anyolo.thing" else [])
    table = Registry("thing", TABLE, group="anyolo.thing")
    assert table.names() == ("v5lite-e", "other", "mine")
    assert table.get("mine")([1]) == "[1]"
    with pytest.raises(ModuleNotFoundError):
        table.get("other")
