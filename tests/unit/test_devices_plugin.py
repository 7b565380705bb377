"""A backend in a package of its own: one file and one entry point, nothing edited in anyolo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

PACKAGE = ROOT / "tests" / "plugin_backend"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which the package is installed."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("site")
    # pip's own way into a folder that nobody else sees; nothing is asked of any index
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    done = subprocess.run(
        [*pip, "--target", str(folder), str(PACKAGE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )


def anyolo(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return run(environment, "-m", "anyolo.cli", *words)


def test_it_is_one_file() -> None:
    assert [path.name for path in PACKAGE.glob("*.py")] == ["anyolo_toaster.py"]
    assert "toaster" not in "".join(path.read_text() for path in (ROOT / "anyolo").rglob("*.py"))


def test_it_is_listed_with_its_facts(installed: dict[str, str]) -> None:
    done = anyolo(installed, "devices", "device=toaster", "--json")
    document = json.loads(done.stdout)
    (line,) = document["devices"]
    assert line["backend"] == "toaster" and line["available"] and line["can_be_emulated"]
    assert [device["hardware"] for device in line["devices"]] == ["slot 0", "slot 1"]
    assert document["facts"]["rules"][0]["message"] == "the toaster burns bool times float"
    done = anyolo(installed, "devices")
    assert done.returncode == 0 and "device=toaster" in done.stdout and "catch16, toaster" in done.stdout


def test_it_keeps_the_contract(installed: dict[str, str]) -> None:
    words = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/conformance/test_devices.py",
        "-k",
        "toaster",
    ]
    done = run(installed, *words)
    assert done.returncode == 0, done.stdout
    # the profile, its texts, its operators, opening, its name; the verbs, a step, a step under its rules
    assert "9 passed" in done.stdout


CHOICES = """
from anyolo.devices import open_device
from anyolo.errors import AnyoloError
for typed in ("auto", "toaster:1", "-1", "toaster:2", "toaster:0,1", "0,1"):
    try:
        print(open_device(typed).describe())
    except AnyoloError as error:
        print(str(error).replace("\\n", " | "))
try:
    open_device("0,1", batch=7)
except AnyoloError as error:
    print(error.message, error.hint)
"""


def test_it_is_chosen_counted_and_refused_as_any_other(installed: dict[str, str]) -> None:
    done = run(installed, "-c", CHOICES)
    assert done.stdout.splitlines() == [
        "toaster:0 (slot 0)",
        "toaster:1 (slot 1)",
        "toaster:1 (slot 1)",  # the idlest
        "device: there is no toaster:2 | Here you can use: device=toaster:0, device=toaster:1.",
        "device: 'toaster:0,1' names 2 devices: only training uses several | Use device=toaster:0.",
        "device: '0,1' names 2 devices: only training uses several | Use device=toaster:0.",
        "a batch of 7 does not divide among 2 devices Use batch=6 or batch=8.",
    ], done.stderr


def test_a_broken_package_spoils_nothing_but_its_own_line(installed: dict[str, str], tmp_path: Path) -> None:
    info = tmp_path / "broken-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[anyolo.devices]\nbroken = no_such_module:Thing\n")
    environment = {**installed, "PYTHONPATH": os.pathsep.join([str(tmp_path), installed["PYTHONPATH"]])}
    done = anyolo(environment, "devices", "--json")
    lines = {line["backend"]: line for line in json.loads(done.stdout)["devices"]}
    assert lines["cpu"]["available"] and lines["toaster"]["available"]
    assert (
        lines["broken"]["problem"]
        == "its package fails here: ModuleNotFoundError: No module named 'no_such_module'"
    )
    done = run(
        environment, "-c", "from anyolo.devices import open_device; print(open_device('auto').profile.name)"
    )
    assert done.stdout.strip() == "toaster", done.stderr
    done = anyolo(environment, "predict", "device=broken", "model=yolov8n", "source=x.jpg")
    assert done.returncode == 5 and "'broken' is not available: its package fails here" in done.stderr
