"""The command line with the real verbs behind it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from anyolo.cli import main


def test_info_in_a_process_of_its_own_prints_one_document():
    done = subprocess.run(
        [sys.executable, "-m", "anyolo.cli", "info", "model=yolov8n", "imgsz=640", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["family"] == "yolov8"
    assert document["parameters"] == 3_157_200
    assert document["gflops"] == pytest.approx(8.74, rel=0.01)


@pytest.mark.parametrize(
    ("words", "code", "error", "hint"),
    [
        (["info", "model=yolov8q"], 2, "yolov8q", "yolov8"),
        (["info", "model=no/such/file.pt"], 4, "no/such/file.pt", ""),
        (["train", "model=yolov8n", "data=no/such/data.yaml"], 3, "no/such/data.yaml", ""),
        (["predict", "model=yolov8n", "source=no/such/picture.jpg"], 3, "no/such/picture.jpg", ""),
        (["info", "model=yolov8n", "imgsz=33"], 2, "33", "32"),
        (["predict", "model=yolov8n", "device=gpux", "source=x.jpg"], 2, "gpux", ""),
        (["export", "model=yolov8n", "format=onix"], 2, "onix", "onnx"),
    ],
)
def test_a_wrong_request_is_answered_with_code_place_and_what_to_do(
    words, code, error, hint, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert error in document["error"]
    assert hint in document["hint"]
    assert document["hint"]
    assert document["kind"] != "Exception"
