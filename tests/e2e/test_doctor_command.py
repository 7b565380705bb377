"""The command itself: words, JSON, report file and exit code."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from anyolo.api import diagnosis
from anyolo.audit import doctor
from anyolo.cli import main
from anyolo.families import FAMILIES
from tests.conformance import broken_devices as broken
from tests.conformance.broken_devices import Broken


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Settings of a short examination, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    rows = yaml.safe_load(FAMILIES.get("yolov8").rows_text())
    (tmp_path / "small.yaml").write_text(
        yaml.safe_dump({**rows, "nc": 4, "scales": {"t": [0.33, 0.125, 256]}})
    )
    return ["doctor", f"model={tmp_path / 'small.yaml'}", "imgsz=64"]


@pytest.fixture
def few(monkeypatch):
    """Only some of the operator tests."""
    words = ("cumsum", "unique", "lerp", "topk")
    every = doctor.cases_for
    monkeypatch.setattr(
        doctor, "cases_for", lambda *of: [case for case in every(*of) if case.operator in words]
    )


def test_a_right_device_ends_with_0_and_a_report(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert main([*small, "device=cpu", f"project={tmp_path}/runs"]) == 0
    (report,) = tmp_path.glob("doctor-cpu-*.md")
    assert re.fullmatch(r"doctor-cpu-\d{4}-\d\d-\d\d-\d{4}\.md", report.name)
    text = report.read_text()
    for words in (
        "**no errors in",
        "## Machine",
        "| torch |",
        "conv2d (3x3, plain)",
        "gradient, float32",
        "## Speed",
    ):
        assert words in text, words
    assert "UNFINISHED" not in text
    assert str(tmp_path) not in text and "~/runs" in text, "the user's home is nobody's business"
    shown = capsys.readouterr().out
    assert report.name in shown and "no errors in" in shown


def test_a_wrong_device_ends_with_1_and_names_the_operator(small, few, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "open_device", lambda *_, **__: Broken(broken.late_cumsum))
    assert main([*small, "device=cpu", "output=out/mine.md", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == "out/mine.md"
    assert document["errors"] == sum(f["severity"] == "error" for f in document["findings"]) > 1
    assert {"id", "severity", "where", "message"} == set(document["findings"][0])
    assert ("operator.wrong", "operator cumsum") in {(f["id"], f["where"]) for f in document["findings"]}
    text = (tmp_path / "out" / "mine.md").read_text()
    assert "| error | operator.wrong | operator cumsum |" in text


def test_an_emulated_device_reports_refusals_and_falls_back(small, few, tmp_path, capsys):
    assert main([*small, "device=emulate:directml", f"output={tmp_path}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["errors"] == 0 and document["warnings"] > 0
    messages = " ".join(f["message"] for f in document["findings"])
    assert "Return counts not implemented for unique operator for DirectML" in messages
    assert "fall back to run on the CPU" in messages
    (report,) = tmp_path.glob("doctor-emulate-directml-*.md")
    assert "an emulated device has no speed" in report.read_text()


def test_a_process_that_dies_leaves_the_name_of_what_killed_it(small, few, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for a driver that ends the process."""

    def change(func, args, kwargs):
        if "topk" in str(func):
            raise Killed
        return NotImplemented

    monkeypatch.setattr(diagnosis, "open_device", lambda *_, **__: Broken(change))
    with pytest.raises(Killed):
        main([*small, "output=dead.md"])
    assert "UNFINISHED: the process ended during topk, float32" in (tmp_path / "dead.md").read_text()


def test_a_report_that_cannot_be_written_is_said_before_the_work(small, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*small, "output=file/report.md"]) == 2
    assert "cannot write the report" in capsys.readouterr().err


def test_a_device_that_is_not_here_is_one_paragraph(small, capsys):
    assert main([*small, "device=nonsense"]) != 0
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "nonsense" in shown
