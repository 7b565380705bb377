"""``anyolo devices``: the lines, the facts, and that they fit a terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from anyolo import console
from anyolo.api.listing import run_devices
from anyolo.devices import DEVICES, available
from anyolo.errors import ConfigError, UnknownName

KEYS = {"backend", "available", "problem", "needs", "devices"}


def shown(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> str:
    """What a terminal of that width shows."""
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    with console.use(console.RichReporter(stream)):
        run_devices(settings)
    return stream.getvalue()


def test_every_backend_is_a_line() -> None:
    result = run_devices({})
    document = result.to_json()
    assert result.ok and json.loads(json.dumps(document)) == document
    assert [line["backend"] for line in document["devices"]] == list(DEVICES)
    assert all(line.keys() >= KEYS for line in document["devices"])
    for line in document["devices"]:
        assert line["available"] == (not line["problem"]) == (line["backend"] in available())
        assert line["needs"] or line["backend"] == "cpu"
        assert bool(line["devices"]) == line["available"]
    assert "facts" not in document


def test_the_cpu_with_model_and_memory() -> None:
    (line,) = run_devices({"device": "cpu"}).to_json()["devices"]
    (cpu,) = line["devices"]
    assert cpu["name"] == "cpu:0" and cpu["hardware"]
    assert cpu["total_bytes"] > cpu["free_bytes"] > 2**27
    assert (
        line["dist_backend"] == "gloo"
        and line["compile"]
        and line["channels_last"]
        and not line["pin_memory"]
    )
    assert line["autocast_dtypes"] in ([], ["bfloat16"])
    assert set(line["limits"]) == (set() if line["autocast_dtypes"] else {"amp", "half"})


def test_facts_of_directml() -> None:
    for name in ("directml", "dml:0", "emulate:directml", "privateuseone"):
        document = run_devices({"device": name}).to_json()
        assert [line["backend"] for line in document["devices"]] == ["directml"]
        assert document["facts"]["native"] == 299 and document["facts"]["unlisted"] == "fallback"
    rules = document["facts"]["rules"]
    assert {
        "severity": "error",
        "operators": ["aten::_unique2"],
        "when": "return_counts=True",
        "message": "Return counts not implemented for unique operator for DirectML.",
        "source": "https://github.com/microsoft/DirectML/issues/410",
        "confidence": "disasm",
    } in rules
    assert document["facts"]["denied_dtypes"]["float64"].startswith("The GPU device does not support Double")


def test_a_backend_without_facts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "facts" not in run_devices({"device": "cuda"}).to_json()
    assert "No list of what cuda cannot do is kept" in shown({"device": "cuda"}, monkeypatch)


def test_words_that_name_no_backend() -> None:
    with pytest.raises(UnknownName, match="unknown device 'nonsense'"):
        run_devices({"device": "nonsense"})
    for word in ("0", "auto", -1):
        with pytest.raises(ConfigError, match="names no backend"):
            run_devices({"device": word})


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("device", ["", "directml", "mlu270", "xpu"])
def test_it_fits_the_terminal(device: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown({"device": device}, monkeypatch, columns)
    assert max(map(len, text.splitlines())) <= columns, text
    if not device:
        assert all(name in text for name in DEVICES)


def test_the_command_prints_one_document() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anyolo.cli", "devices", "device=cpu", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["devices"][0]["backend"] == "cpu"
