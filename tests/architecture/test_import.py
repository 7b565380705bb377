"""``import anyolo`` and every help page cost next to nothing; what the doors promise is there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

from tests.architecture.source import ROOT, by_name
from tests.architecture.test_doors import DOORS, table_of

HEAVY = {
    "torch",
    "numpy",
    "cv2",
    "matplotlib",
    "pydantic",
    "onnx",
    "onnxruntime",
    "numba",
    "faster_coco_eval",
}


def heavy_modules_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter holds after running ``code``."""
    script = f"import sys, io, json\n{code}\nsys.__stdout__.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    return HEAVY & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import anyolo",
        "import anyolo.console, anyolo.registry, anyolo.types, anyolo.errors",
        "import anyolo.config.schema, anyolo.config.load",
        "import anyolo.cli",
    ],
)
def test_light_modules_stay_light(code):
    assert heavy_modules_after(code) == set()


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["predict", "-h"], ["--version"], []])
def test_help_imports_nothing_heavy(words):
    code = f"sys.stdout = io.StringIO()\nfrom anyolo.cli import main\nmain({words!r})"
    assert heavy_modules_after(code) == set()


def test_every_public_name_exists():
    import anyolo

    for name in anyolo.__all__:
        assert getattr(anyolo, name) is not None


@pytest.mark.parametrize("door", DOORS)
def test_every_occupant_can_be_imported(door):
    for place in table_of(by_name()[door]).values():
        module, _, attribute = place.partition(":")
        assert getattr(import_module(module), attribute) is not None
