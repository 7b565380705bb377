"""YOLOv5's hyp files, and the words of its users for the opposite of a switch."""

from __future__ import annotations

import pytest

from anyolo.cli.words import parse
from anyolo.config.load import Layer, load
from anyolo.config.schema import TrainVerb
from anyolo.config.settings import OPPOSITES, UNUSED, settings_of
from anyolo.errors import ConfigError, UnknownName

# keys and values of the low-augmentation recipe of YOLOv5 v7.0
LOW = """\
lr0: 0.01  # initial learning rate
lrf: 0.01
momentum: 0.937
weight_decay: 0.0005
warmup_epochs: 3.0
warmup_momentum: 0.8
warmup_bias_lr: 0.1
box: 0.05
cls: 0.5
cls_pw: 1.0
obj: 1.0
obj_pw: 1.0
iou_t: 0.20
anchor_t: 4.0
anchors: 3
fl_gamma: 0.0
hsv_h: 0.015
hsv_s: 0.7
hsv_v: 0.4
degrees: 0.0
translate: 0.1
scale: 0.5
shear: 0.0
perspective: 0.0
flipud: 0.0
fliplr: 0.5
mosaic: 1.0
mixup: 0.25
copy_paste: 0.1
"""


@pytest.fixture
def low(tmp_path):
    file = tmp_path / "hyp.scratch-low.yaml"
    file.write_text(LOW)
    return str(file)


def test_a_hyp_file_is_read_between_recipe_and_typed_keys(low):
    recipe = Layer("recipe", {"box": 7.0, "obj": 0.7, "close_mosaic": 0})
    loaded = load(TrainVerb, {"hyp": low, "obj": "0.3"}, layers=[recipe])
    config = loaded.config
    assert (config.loss.box, config.loss.obj, config.augment.close_mosaic) == (0.05, 0.3, 0)
    assert (config.augment.mixup, config.optim.warmup_bias_lr, config.loss.anchor_t) == (0.25, 0.1, 4.0)
    assert config.model.anchors is None
    assert {"lr0", "box", "obj", "hsv_h", "mixup"} <= loaded.explicit
    assert loaded.explicit.isdisjoint(UNUSED)


def test_what_means_nothing_here_is_named_in_one_line(low):
    (notice,) = load(TrainVerb, {"hyp": low}).notices
    assert notice.startswith(f"{low}: not used here: anchors=3 (")
    assert "copy_paste=0.1 (labels are boxes" in notice and "iou_t=0.2 (" in notice
    assert "fl_gamma" not in notice
    assert load(TrainVerb, {"lr0": 0.1}).notices == ()


def test_a_slip_in_a_hyp_file_has_its_line_and_a_suggestion(tmp_path, low):
    file = tmp_path / "own.yaml"
    file.write_text(LOW.replace("fl_gamma", "fl_gama"))
    with pytest.raises(UnknownName) as caught:
        load(TrainVerb, {"hyp": str(file)})
    assert caught.value.where == f"{file}:16" and "'fl_gamma'" in caught.value.hint
    file.write_text(LOW.replace("mixup: 0.25", "mixup: 25"))
    with pytest.raises(ConfigError, match="a number, from 0 to 1") as caught:
        load(TrainVerb, {"hyp": str(file)})
    assert caught.value.where == f"{file}:28"


def test_a_list_of_anchors_in_a_hyp_file_is_ours(tmp_path):
    file = tmp_path / "hyp.yaml"
    file.write_text("anchors: [10, 13, 16.5, 30]\n")
    loaded = load(TrainVerb, {"hyp": str(file)})
    assert loaded.config.model.anchors == (10.0, 13.0, 16.5, 30.0) and not loaded.notices


def test_unused_keys_are_no_settings_but_for_anchors():
    assert set(UNUSED) & set(settings_of(TrainVerb)) == {"anchors"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("train --noautoanchor", False),
        ("train --noautoanchor --data x.yaml", False),
        ("train noautoanchor=True", False),
        ("train noautoanchor=0", True),
        ("train autoanchor=False", False),
        ("train", True),
    ],
)
def test_noautoanchor_is_the_opposite_of_autoanchor(line, wanted):
    loaded = load(TrainVerb, parse(line.split()).values)
    assert loaded.config.schedule.autoanchor is wanted


def test_opposites_are_of_switches_and_must_agree():
    for word, key in OPPOSITES.items():
        assert settings_of(TrainVerb)[key][0].is_switch and word not in settings_of(TrainVerb)
    with pytest.raises(ConfigError, match="autoanchor is given twice"):
        load(TrainVerb, {"noautoanchor": True, "autoanchor": True})
    with pytest.raises(ConfigError, match="takes True or False"):
        load(TrainVerb, {"noval": "never"})
    with pytest.raises(UnknownName, match="noautoanchr") as caught:
        load(TrainVerb, {"noautoanchr": True})
    assert "'noautoanchor'" in caught.value.hint
