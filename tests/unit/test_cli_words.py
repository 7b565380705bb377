"""The command line as people of this field write it."""

from __future__ import annotations

import pytest

from anyolo.cli.verbs import VERBS
from anyolo.cli.words import parse
from anyolo.config.load import load
from anyolo.errors import ConfigError, UnknownName


@pytest.mark.parametrize(
    ("line", "verb", "values"),
    [
        ("train data=x.yaml epochs=50", "train", {"data": "x.yaml", "epochs": "50"}),
        ("train --data x.yaml --epochs 50", "train", {"data": "x.yaml", "epochs": "50"}),
        ("train --data=x.yaml --epochs=50", "train", {"data": "x.yaml", "epochs": "50"}),
        ("task=detect mode=train data=x.yaml", "train", {"data": "x.yaml"}),
        ("--task detect --mode train --data x.yaml", "train", {"data": "x.yaml"}),
        ("detect train data=x.yaml", "train", {"data": "x.yaml"}),
        ("data=x.yaml train", "train", {"data": "x.yaml"}),
        ("train mode=train data=x.yaml", "train", {"data": "x.yaml"}),
        ("train resume model=a/last.pt", "train", {"resume": True, "model": "a/last.pt"}),
        ("train --resume a/last.pt", "train", {"resume": "a/last.pt"}),
        ("train --resume model=a/last.pt", "train", {"resume": True, "model": "a/last.pt"}),
        ("train resume=a/last.pt", "train", {"resume": "a/last.pt"}),
        ("train --resume", "train", {"resume": True}),
        (
            "train --exist-ok --rect --data x.yaml",
            "train",
            {"exist_ok": True, "rect": True, "data": "x.yaml"},
        ),
        ("train --amp false --cos-lr", "train", {"amp": "false", "cos_lr": True}),
        ("train --cache ram", "train", {"cache": "ram"}),
        ("train --cache --data x.yaml", "train", {"cache": True, "data": "x.yaml"}),
        (
            "train --weights y.pt --cfg y.yaml --hyp h.yaml --batch-size 8 --img 416",
            "train",
            {"model": "y.pt", "cfg": "y.yaml", "hyp": "h.yaml", "batch": "8", "imgsz": "416"},
        ),
        ("train --save-period -1 workers=0", "train", {"save_period": "-1", "workers": "0"}),
        ("predict source=a=b.jpg imgsz=320", "predict", {"source": "a=b.jpg", "imgsz": "320"}),
        ("export format=onnx imgsz=224,128", "export", {"format": "onnx", "imgsz": "224,128"}),
        ("predict --name predict", "predict", {"name": "predict"}),
        ("val batch=4 --batch-size 4", "val", {"batch": "4"}),
        ("demo", "demo", {}),
        ("train name=", "train", {"name": ""}),
    ],
)
def test_a_line_is_read(line, verb, values):
    request = parse(line.split())
    assert request.verb == verb
    assert request.values == values
    assert not request.flags


def test_a_line_of_an_ultralytics_user_is_read_and_all_its_settings_exist():
    line = (
        "task=detect mode=train val=True data=d.yaml model=yolov8n.pt epochs=1 workers=0 imgsz=640 seed=1"
        " device=dml amp=False verbose=True"
    )
    request = parse(line.split())
    config = load(VERBS[request.verb], request.values).config
    assert (config.schedule.val, config.data.data, config.model.model) == (True, "d.yaml", "yolov8n.pt")
    assert (config.data.workers, config.device.device, config.device.amp) == (0, "dml", False)


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("--help", "--help"),
        ("-h", "-h"),
        ("help", "--help"),
        ("train --help", "--help"),
        ("help train", "--help"),
    ],
)
def test_help_is_understood_in_any_place(line, flag):
    request = parse(line.split())
    assert request.wants(flag)
    assert request.verb == ("train" if "train" in line else "")


def test_help_wins_over_mistakes_after_the_verb():
    assert parse(["train", "--help", "no_such=1"]).wants("--help")


@pytest.mark.parametrize("line", ["trian data=x", "mode=trian", "--mode trian", "detect trian"])
def test_an_unknown_verb_gets_a_suggestion(line):
    with pytest.raises(UnknownName, match="unknown verb 'trian'") as caught:
        parse(line.split())
    assert "'train'" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("data=x.yaml epochs=1", "no verb", "train"),
        ("train --epoch 5", "unknown setting 'epoch'", "'epochs'"),
        ("train epochs", "epochs needs a value", "a whole number"),
        ("train --epochs", "--epochs needs a value", "epochs=VALUE"),
        ("train --epochs --amp", "--epochs needs a value", "epochs=VALUE"),
        ("train data.yaml", "'data.yaml' stands alone", "data=data.yaml"),
        ("val best.pt", "'best.pt' stands alone", "model=best.pt"),
        ("predict bus.jpg", "'bus.jpg' stands alone", "source=bus.jpg"),
        ("train epochs=1 epochs=2", "epochs is given twice: 1 and 2", "one of them"),
        ("train task=segment", "task=segment: anyolo does detection only", "task=detect"),
        ("train -x", "unknown setting '-x'", ""),
    ],
)
def test_what_cannot_be_read_says_what_to_write(line, message, hint):
    with pytest.raises(ConfigError) as caught:
        parse(line.split())
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2
