"""``anyolo audit``: the jobs, the files it writes, the exit codes."""

from __future__ import annotations

import json

import pytest

from anyolo.cli import main


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["audit", *words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize("mode", ["train", "val", "predict", "export"])
def test_every_mode_of_yolov8n_is_clean_on_directml(capsys, mode):
    code, out, _ = run(capsys, "model=yolov8n", "backend=dml", f"mode={mode}", "--json")
    document = json.loads(out)
    assert (code, document["unsupported"], document["fallback"]) == (0, 0, 0)
    assert document["backend"] == "directml"
    assert {"op", "count", "phase", "verdict", "where"} <= set(document["ops"][0])
    assert all(row["where"] for row in document["ops"])
    assert "convolution" in {row["op"].removeprefix("aten::") for row in document["ops"]}


def test_training_on_a_card_for_graphs_is_refused_with_reason(capsys, tmp_path):
    page = tmp_path / "new" / "audit.html"
    code, out, _ = run(capsys, "model=yolov8n", "backend=mlu270", f"output={page}")
    assert code == 1
    assert "runs finished graphs only" in out and "aten::silu is not supported by the MLU270" in out
    assert "anyolo/nn/blocks/conv.py:" in out
    assert "<!doctype html>" in page.read_text(encoding="utf-8")
    assert [path.name for path in page.parent.iterdir()] == ["audit.html"]


def test_the_json_file_is_the_json_document(capsys, tmp_path):
    file = tmp_path / "audit.json"
    code, out, _ = run(capsys, "model=yolov8n", "backend=mlu", "mode=predict", f"output={file}", "--json")
    assert code == 0
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=yolov8n"], "directml"),
        (["model=yolov8n", "backend=directm"], "Did you mean 'directml'"),
        (["model=yolov8n", "backend=cpu"], "unknown backend"),
        (["model=yolov8n", "backend=mlu", "output=a.txt"], "ends in .html or .json"),
        (["backend=mlu"], "no model given"),
        (["model=yolov8n", "backend=mlu", "mode=trian"], "mode"),
    ],
)
def test_a_slip_costs_no_work(capsys, words, says):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert says in out + err
