"""Shared code never names a vendor, a family, an export format or a dataset format (DESIGN 2)."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.source import by_name, dotted, modules, report
from tests.architecture.test_doors import table_of

VENDOR_ATTRIBUTE = re.compile(
    r"torch\.(cuda|mps|xpu|npu|mlu|hpu|musa|backends|version\.(cuda|hip))\b|.*\.device\.type$"
)
VENDOR_STRING = re.compile(r"(cuda|gpu|mps|xpu|npu|mlu|dml|directml|privateuseone|hpu|musa)(:\d+)?$")
VENDOR_PACKAGES = {"torch_npu", "torch_mlu", "torch_directml", "intel_extension_for_pytorch", "torch_musa"}

# Where an occupant's name is a default or a word of the user, not a branch.
USER_WORDS = ("cli", "config", "api")
# Names that mean something else as well: the host is "cpu" in every torch program.
PLAIN_WORDS = {"cpu"}


def test_vendor_words_stay_in_devices():
    faults = []
    for module in modules():
        if module.within("devices"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and VENDOR_ATTRIBUTE.match(dotted(node)):
                faults.append(f"{module.at(node.lineno)} {dotted(node)}; ask anyolo.devices.Device instead")
        if not module.within("cli"):
            faults += [
                f"{module.at(line)} the vendor word {text!r}; ask anyolo.devices.Device instead"
                for line, text in module.strings()
                if VENDOR_STRING.match(text)
            ]
        faults += [
            f"{module.at(item.line)} imports {item.target}; only anyolo.devices may"
            for item in module.imports
            if item.top in VENDOR_PACKAGES
        ]
    assert not faults, report(faults)


@pytest.mark.parametrize("door", ["anyolo.families", "anyolo.export", "anyolo.data.formats"])
def test_occupants_are_named_only_inside_their_door(door):
    # a card may have a device and a format of its name; those have their own rule, above
    names = set(table_of(by_name()[door])) - PLAIN_WORDS - set(table_of(by_name()["anyolo.devices"]))
    faults = [
        f"{module.at(line)} names {text!r}; ask its object in the table of {door}"
        for module in modules()
        if not module.name.startswith(door) and not module.within(*USER_WORDS)
        for line, text in module.strings()
        if text in names
    ]
    assert not faults, report(faults)
