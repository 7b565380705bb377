"""``anyolo anchors``, the check at the start of training, and settings that come with a data file."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anyolo import console
from anyolo.api.anchors import run_anchors
from anyolo.api.data_files import read_data_layer
from anyolo.api.models import open_model
from anyolo.api.training import run_train
from anyolo.api.using import run_val
from anyolo.cli import main
from anyolo.config.schema import ModelConfig
from anyolo.errors import ConfigError, DataError
from anyolo.families import build_model
from anyolo.families.checkpoints import load_model, model_record, save_atomic
from anyolo.train.hooks import StopHook

OWN = [12.64, 19.39, 37.88, 51.48, 55.71, 138.31, 126.91, 78.23, 131.57, 214.55, 279.92, 258.87]
SIX = [4.0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four 64 x 128 pictures with boxes of 6 and 12 pixels (at 96 x 96 4.5 x 9 and 9 x 18); a ``.data``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(4):
        picture = np.full((64, 128, 3), 90, np.uint8)
        rows = []
        for kind, side in ((0, 6), (1, 12)):
            x, y = (int(v) for v in rng.integers(20, 44, 2))
            cv2.rectangle(picture, (x, y), (x + side - 1, y + side - 1), (0, 0, 255 * kind), -1)
            box = ((x + side / 2) / 128, (y + side / 2) / 64, side / 128, side / 64)
            rows.append(" ".join(map(str, (kind, *box))))
        path = tmp_path / f"set/{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
        path.with_suffix(".txt").write_text("\n".join(rows))
    root = tmp_path / "set"
    (root / "all.txt").write_text("".join(f"{number}.png\n" for number in range(4)))
    (root / "obj.names").write_text("dark\nred\n")
    (root / "obj.data").write_text(
        "epochs=1\nsteps=1\nbatch_size=4\nlearning_rate=0.002\nmodel_name=lights\nclasses=2\nwidth=96\n"
        f"height=96\nanchor_num=3\nanchors={','.join(map(str, SIX))}\n"
        "train=all.txt\nval=all.txt\nnames=obj.names\nbackup=b/\n"
    )
    return root / "obj.data"


def plain(data: Path) -> str:
    """The same pictures without the settings."""
    (data.parent / "plain.data").write_text("train=all.txt\nval=all.txt\nnames=obj.names\n")
    return str(data.parent / "plain.data")


def said(job, *args) -> tuple[object, str]:
    stream = io.StringIO()
    with console.use(console.RichReporter(stream)):
        result = job(*args)
    return result, stream.getvalue()


def anchors_of(path: Path) -> list[float]:
    anchors = load_model(path).model.head.read_anchors()
    return [] if anchors is None else [round(side, 2) for side in anchors.flatten().tolist()]


# ------------------------------------------------------------------ the verb


def test_present_and_fitted_anchors_in_one_document(data, tmp_path, capsys):
    words = f"anchors data={plain(data)} model=yolo-fastestv2 imgsz=96 project={tmp_path / 'runs'} --json"
    assert main(words.split()) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"boxes", "imgsz", "fit", "anchor_t", "rows", "plot"}
    assert (document["boxes"], document["imgsz"], document["fit"]) == (8, [96, 96], "stretch")
    assert document["anchor_t"] == 2.0  # of the family's recipe
    present, fitted = document["rows"]
    assert present.keys() == {"anchors", "fitness", "recall", "anchors_per_box", "anchors_px"}
    assert present["anchors_px"] == np.reshape(OWN, (-1, 2)).tolist()
    # boxes are 4.5 x 9 and 9 x 18: only the larger half reaches 12.64 x 19.39
    assert present["recall"] == 0.5 and present["fitness"] == pytest.approx(0.5 * 9 / 12.64, abs=1e-4)
    assert fitted["recall"] == 1.0 and len(fitted["anchors_px"]) == 6 and fitted["fitness"] > 0.99
    plot = cv2.imread(document["plot"])
    assert plot is not None and plot.shape[1] > 1.5 * plot.shape[0] > 800


def test_without_a_model_nine_or_n_are_fitted(data, tmp_path):
    result, text = said(run_anchors, {"data": plain(data), "imgsz": 128, "plots": False})
    document = result.to_json()
    assert document["plot"] is None and (document["fit"], document["anchor_t"]) == ("letterbox", 4.0)
    (row,) = document["rows"]
    assert row["anchors"] == "fitted" and len(row["anchors_px"]) == 9
    (typed,) = re.findall(r"to train with the fitted ones: anchors=(\S+)", text)
    assert len(typed.split(",")) == 18
    few = run_anchors({"data": plain(data), "imgsz": 128, "n": 2, "plots": False}).to_json()["rows"][0]
    # letterboxed to 128: boxes of 6 and 12 pixels as they are
    assert np.allclose(few["anchors_px"], [[6, 6], [12, 12]], atol=0.2)


def test_the_data_file_names_network_size_and_anchors(data):
    document = run_anchors({"data": str(data), "plots": False}).to_json()
    assert document["imgsz"] == [96, 96]
    assert document["rows"][0]["anchors_px"] == np.reshape(SIX, (-1, 2)).tolist()


def test_a_model_without_anchors_and_a_split_without_boxes_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="this model has no anchors"):
        run_anchors({"data": plain(data), "model": "yolov8n"})
    for path in data.parent.glob("*.txt"):
        if path.stem.isdigit():
            path.write_text("")
    with pytest.raises(DataError, match="the train split has no box"):
        run_anchors({"data": plain(data)})


# ------------------------------------------------------------------ anchors of one's own


def test_typed_anchors_replace_the_models_own():
    found = open_model(ModelConfig(model="yolo-fastestv2", anchors=tuple(SIX)))
    assert found.model.head.read_anchors().flatten().tolist() == pytest.approx(SIX)
    assert found.model.head.anchors[1].flatten().tolist() == pytest.approx([s / 32 for s in SIX[6:]])


@pytest.mark.parametrize(
    ("model", "sides", "words"),
    [
        ("yolo-fastestv2", SIX[:-2], "10 numbers given, but the model has 2 levels of 3 anchors"),
        ("yolo-fastestv2", [*SIX[:-1], -1.0], "12 numbers given"),
        ("yolov8n", SIX, "this model has no anchors"),
    ],
)
def test_anchors_that_do_not_fit_are_refused(model, sides, words):
    with pytest.raises(ConfigError, match=words) as caught:
        open_model(ModelConfig(model=model, anchors=tuple(sides)))
    assert caught.value.where == "anchors" and caught.value.hint


def test_validation_takes_the_files_anchors_for_bare_weights_only(data, tmp_path):
    spec, model = build_model("yolo-fastestv2", nc=2)
    bare, own = tmp_path / "bare.pth", tmp_path / "own.pt"
    torch.save(dict(spec.export_weights(model.state_dict())), bare)
    save_atomic(model_record(model, spec, ("dark", "red"), imgsz=(96, 96), metrics={}), own)
    for path, wanted in ((bare, SIX), (own, OWN)):
        found = open_model(ModelConfig(model=str(path)), spare_anchors=SIX)
        assert found.model.head.read_anchors().flatten().tolist() == pytest.approx(wanted)
        typed = open_model(ModelConfig(model=str(path), anchors=(9.0,) * 12), spare_anchors=SIX)
        assert set(typed.model.head.read_anchors().flatten().tolist()) == {9.0}
    settings = {"model": str(bare), "device": "cpu", "workers": 0, "plots": False, "project": str(tmp_path)}
    assert run_val({**settings, "data": str(data)}).to_json()["images"] == 4


# ------------------------------------------------------------------ training


def trained(data: str, tmp_path: Path, **settings) -> tuple[list[float], str]:
    """Anchors of last.pt after one epoch, and what was said."""
    common = {
        "epochs": 1,
        "batch": 4,
        "workers": 0,
        "device": "cpu",
        "plots": False,
        "project": str(tmp_path / "runs"),
    }
    result, text = said(run_train, {"data": data, **common, **settings})
    return anchors_of(result.last), text


def test_one_data_file_is_all_that_training_needs(data, tmp_path):
    stream = {"workers": 0, "device": "cpu", "plots": False, "project": str(tmp_path / "runs"), "lr0": 0.001}
    result, text = said(run_train, {"data": str(data), **stream})
    assert result.run.name == "lights" and result.epochs == 1
    (line,) = re.findall(rf"^{re.escape(str(data))}: (.*)$", text, re.MULTILINE)
    assert line.startswith("took epochs=1 steps=1 name=lights anchors=4.0,5,6,")
    assert line.endswith("batch=4 nbs=4; your own lr0 instead of its; not used: backup")
    args = (result.run / "args.yaml").read_text()
    assert "lr0: 0.001\n" in args and "imgsz: 96\n" in args and "nbs: 4\n" in args
    assert anchors_of(result.last) == SIX  # as given, though they are not the best
    assert "fitted" not in text


def test_anchors_that_miss_boxes_are_replaced_and_kept_by_the_checkpoint(data, tmp_path):
    fitted, text = trained(plain(data), tmp_path, model="yolo-fastestv2", imgsz=96)
    assert fitted != OWN and max(fitted) < 24
    assert "anchors: 50.0% of the boxes within reach (fitness 0.356); new ones fitted: 100.0%" in text
    assert trained(plain(data), tmp_path, model="yolo-fastestv2", imgsz=96, autoanchor=False)[0] == OWN
    given, text = trained(plain(data), tmp_path, model="yolo-fastestv2", imgsz=96, anchors=OWN)
    assert given == OWN and "warning: anchors: 50.0%" in text and "kept as given" in text


def test_anchors_that_reach_all_boxes_stay_and_models_without_any_are_left_alone(data, tmp_path):
    kept, text = trained(plain(data), tmp_path, model="yolo-fastestv2", imgsz=96, anchor_t=20)
    assert kept == OWN and "anchors: 100.0% of the boxes within reach" in text and ", kept" in text
    none, text = trained(plain(data), tmp_path, model="yolov8n", imgsz=32)
    assert none == [] and "within reach" not in text


def test_a_resumed_run_keeps_the_anchors_it_has(data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(StopHook, "after_step", lambda _, run, *rest: setattr(run, "interrupted", "SIGINT"))
        with pytest.raises(KeyboardInterrupt):
            trained(plain(data), tmp_path, model="yolo-fastestv2", imgsz=96)
    last = tmp_path / "runs/train/weights/last.pt"
    fitted = anchors_of(last)
    assert fitted != OWN and max(fitted) < 24
    # by its place: the package's own name is the function
    start = sys.modules["anyolo.train.start"]
    monkeypatch.setattr(start, "check_anchors", lambda *_: pytest.fail("checked again"))
    result, text = said(run_train, {"resume": str(last), "workers": 0})
    assert result.epochs == 1 and anchors_of(result.last) == fitted and "within reach" not in text


def test_a_layer_of_other_formats_is_empty_and_silent(tmp_path):
    stream = io.StringIO()
    beside = read_data_layer(str(tmp_path))
    with console.use(console.RichReporter(stream)):
        beside.tell(())
    assert beside.layer.values == {} and stream.getvalue() == ""
