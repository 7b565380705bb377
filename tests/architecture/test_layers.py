"""Who may import whom (DESIGN 2): layers, cycles, third-party packages and their rooms."""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter

from tests.architecture.source import imported_module, modules, report

# High to low. A layer imports only layers below it; names on one row do not know each other.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("api",),
    ("deploy", "audit"),
    ("compress",),
    ("train", "export"),
    ("evaluate",),
    ("postprocess", "families"),
    ("loss",),
    ("assign", "nn", "data"),
    ("structures",),
    ("ops", "devices"),
    ("config",),
    ("console",),
    ("registry", "types"),
    ("errors",),
)
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}

# Third-party package -> the places that may import it. What is not listed may not be imported at all.
EVERYWHERE = ("",)
TENSOR_ROOMS = tuple(
    name for name in LEVEL if name not in {"cli", "config", "console", "registry", "types", "errors"}
)
ROOMS = {
    "torch": TENSOR_ROOMS,
    "numpy": TENSOR_ROOMS,
    "cv2": ("ops.image", "ops.draw", "data", "deploy", "evaluate.report"),
    "faster_coco_eval": ("evaluate",),
    "matplotlib": ("evaluate.report",),
    "yaml": EVERYWHERE,
    "rich": ("console", "cli"),
    "pydantic": ("config",),
    "annotated_types": ("config",),
    "numba": ("ops.nms",),
    "pandas": ("deploy.results",),  # Results.to_df, absent unless the user has it
    "safetensors": ("families",),
    "onnx": ("export",),
    "onnxruntime": ("export",),
    "onnxslim": ("export",),
    "openvino": ("export",),
    "ncnn": ("export",),
    "pnnx": ("export",),
}
# Parts of the standard library that reach the network or run what a file says.
FORBIDDEN_STDLIB = {
    "ftplib", "http", "marshal", "shelve", "smtplib", "socket", "socketserver", "ssl", "urllib", "webbrowser",
    "xmlrpc",
}  # fmt: skip


def test_every_module_is_in_a_layer():
    faults = [f"{m.at(1)} '{m.layer}' is in no layer" for m in modules() if m.layer and m.layer not in LEVEL]
    assert not faults, report(faults)


def test_layers_import_only_downwards():
    faults = []
    for module in modules():
        for item in module.imports:
            parts = item.target.split(".")
            if parts[0] != "anyolo" or not module.layer or len(parts) < 2 or parts[1] == module.layer:
                continue
            if parts[1] in LEVEL and LEVEL[parts[1]] <= LEVEL[module.layer]:
                faults.append(
                    f"{module.at(item.line)} '{module.layer}' imports '{parts[1]}', which is not below it"
                )
    assert not faults, report(faults)


def test_there_is_no_import_cycle_also_not_a_lazy_one():
    graph: dict[str, set[str]] = {}
    for module in modules():
        # a package's front may name for type checkers what it hands out from behind itself
        items = (item for item in module.imports if not (module.is_package and item.for_types_only))
        targets = {imported_module(item.target) for item in items}
        graph[module.name] = {target for target in targets if target} - {module.name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("import cycle: " + " -> ".join(error.args[1])) from None


def test_third_party_packages_stay_in_their_rooms():
    faults = []
    for module in modules():
        for item in module.imports:
            top = item.top
            if top in sys.stdlib_module_names or top in {"anyolo", "__future__"}:
                continue
            places = ROOMS.get(top, ())
            if places != EVERYWHERE and not module.within(*places):
                faults.append(
                    f"{module.at(item.line)} imports {top}; allowed in: {', '.join(places) or 'no room'}"
                )
    assert not faults, report(faults)


def test_nothing_reaches_the_network():
    faults = [
        f"{module.at(item.line)} imports {item.target}; anyolo works offline and executes no file"
        for module in modules()
        for item in module.imports
        if item.top in FORBIDDEN_STDLIB
    ]
    assert not faults, report(faults)
