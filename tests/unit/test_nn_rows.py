"""Model rows: scaling, placeholders, users' own files, and errors that say where."""

from __future__ import annotations

import json

import pytest
import yaml

from anyolo.errors import ModelError, UnknownName
from anyolo.families import FAMILIES
from anyolo.nn.model import build
from anyolo.nn.rows import IMAGE, Scale, parse

OWN = yaml.safe_load(FAMILIES.get("yolov8").rows_text())
TINY = {
    "nc": 2,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [24, 3, 2]],
    ],
    "head": [[[2, 3], 1, "Detect", ["nc"]]],
}


def changed(index, row):
    """TINY with one backbone row replaced."""
    backbone = list(TINY["backbone"])
    backbone[index] = row
    return {**TINY, "backbone": backbone}


@pytest.mark.parametrize(
    ("scale", "written", "channels"),
    [
        (Scale(0.33, 0.25, 1024), 1024, 256),
        (Scale(0.67, 0.75, 768), 1024, 576),
        (Scale(1, 1.25, 512), 1024, 640),
        (Scale(1, 1.25, 512), 64, 80),
        (Scale(), 20, 24),
        (Scale(1, 0.33), 64, 24),
    ],
)
def test_channels(scale, written, channels):
    assert scale.channels(written) == channels


def test_repeats():
    assert [Scale(0.33).repeats(n) for n in (1, 3, 6, 9)] == [1, 1, 2, 3]
    assert [Scale(0.67).repeats(n) for n in (1, 3, 6)] == [1, 2, 4]
    assert Scale(0.1).repeats(3) == 1


def test_sources_and_what_is_kept():
    plan = parse(OWN, size="n")
    assert plan.rows[0].sources == (IMAGE,)
    assert plan.rows[11].sources == (10, 6)
    assert plan.rows[22].sources == (15, 18, 21)
    assert sorted(plan.kept()) == [4, 6, 9, 12, 15, 18]  # and row 21 goes on to the head right away


def test_placeholders():
    mapping = {
        **TINY,
        "anchors": [[1, 2]],
        "head": [[-1, 1, "Upsample", ["None", 2, "nearest"]], [3, 1, "Detect", ["nc", "anchors"]]],
    }
    plan = parse(mapping, nc=9)
    assert plan.rows[4].args == (None, 2, "nearest")
    assert plan.rows[5].args == (9, [[1, 2]])


@pytest.mark.parametrize("nc", [1, 5, 80, 200])
def test_a_users_file_with_other_classes(nc):
    model = build({**OWN, "nc": nc}, size="n")
    assert model.nc == nc
    assert model.head.cv3[0][-1].weight.shape[0] == nc
    assert model.head.cv3[0][0].conv.out_channels == max(64, min(nc, 100))


def test_depth_and_width_multiples():
    old_form = {k: v for k, v in OWN.items() if k != "scales"} | {
        "depth_multiple": 0.33,
        "width_multiple": 0.25,
    }
    own, other = build(old_form).state_dict(), build(OWN, size="n").state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in other.items()}


def test_the_stored_mapping_rebuilds_the_model():
    model = build(OWN, size="s", nc=7)
    stored = json.loads(json.dumps(model.rows))
    again = build(stored)
    assert (again.size, again.nc, again.rows) == ("s", 7, model.rows)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_copies_in_sequence():
    """A number above 1 on a block without links of its own gives copies."""
    model = build(changed(2, [-1, 3, "Conv", [16, 3, 1]]) | {"head": [[[2, 3], 1, "Detect", ["nc"]]]})
    names = [
        name for name in model.state_dict() if name.startswith("model.2.") and name.endswith("conv.weight")
    ]
    assert names == [f"model.2.{copy}.conv.weight" for copy in range(3)]
    assert model.strides == (4, 8)


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({**TINY, "backbone": []}, "no rows under 'backbone'"),
        ({**TINY, "nc": 0}, "nc must be a positive number"),
        ({**TINY, "ch": "rgb"}, "ch is the number of image channels"),
        ({**TINY, "ch": 10**9}, "ch is the number of image channels"),
        ({**TINY, "nc": "two"}, "nc must be a positive number"),
        ({**TINY, "scales": {"n": [1]}, "scale": "n"} | {"scales": {"n": ["wide"]}}, "a scale is"),
        ({**TINY, "scales": {"n": [1, 0]}}, "positive numbers"),
        (changed(1, [-1, 1, "Conv"]), "row 1: a row is [from, number, module, args]"),
        (changed(1, [-1, "one", "Conv", [8]]), "row 1: the second entry"),
        (changed(1, [-1, 0, "Conv", [8]]), "row 1: the second entry"),
        (changed(1, [-1, 1, 7, [8]]), "row 1: the third entry"),
        (changed(1, [-1, 1, "Conv", 8]), "row 1: the fourth entry"),
        (changed(1, ["-1", 1, "Conv", [8]]), "row 1: the first entry"),
        (changed(1, [5, 1, "Conv", [8]]), "row 1: reads from row 5"),
        (changed(1, [-2, 1, "Conv", [8]]), "row 1: reads from row -2"),
        (
            changed(1, [-1, 1, "Conv", ["wide"]]),
            "row 1 (Conv): cannot be built from ['wide']: output channels",
        ),
        (changed(1, [-1, 1, "Conv", [8, 3, 2, None, 1, True, 9]]), "takes 6 arguments at most"),
        (changed(1, [-1, 1, "Conv", []]), "row 1 (Conv): cannot be built"),
        (changed(1, [[-1, 0], 1, "Conv", [8]]), "takes one map"),
        (changed(1, [-1, 1, "Concat", [2]]), "dimension 1"),
        (changed(1, [-1, 1, "Upsample", [None, 1.5, "nearest"]]), "whole factor"),
        ({**TINY, "head": [[-1, 1, "Conv", [8]]]}, "the last row must be a detection head"),
        ({**TINY, "head": [[[2, 3], 1, "Detect", [5]]]}, "its first argument is nc, 2"),
    ],
)
def test_errors_say_where(mapping, problem):
    with pytest.raises(ModelError) as caught:
        build(mapping, where="mine.yaml")
    assert str(caught.value).startswith("mine.yaml")
    assert problem in str(caught.value)


def test_unknown_module_with_suggestion():
    with pytest.raises(ModelError) as caught:
        build(changed(3, [-1, 1, "C2F2", [8]]), where="mine.yaml")
    assert caught.value.where == "mine.yaml: row 3 (C2F2)"
    assert "Did you mean" in caught.value.hint and "C2f" in caught.value.hint


def test_unknown_size():
    with pytest.raises(UnknownName, match="unknown model size 'q'"):
        parse(OWN, size="q")


def test_maps_that_do_not_fit():
    mapping = {**TINY, "head": [[[2, 3], 1, "Concat", [1]], [[2, 4], 1, "Detect", ["nc"]]]}
    with pytest.raises(ModelError, match="do not fit together"):
        build(mapping, where="mine.yaml")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("nn.ReLU()", "ReLU"),
        ("torch.nn.ReLU6()", "ReLU6"),
        ("nn.LeakyReLU(0.1)", "LeakyReLU"),
        ("SiLU", "SiLU"),
    ],
)
def test_activation_of_the_whole_model(text, kind):
    model = build({**TINY, "activation": text})
    assert {type(m.act).__name__ for m in model.modules() if hasattr(m, "act")} == {kind}


def test_activation_of_one_row():
    model = build(changed(1, [-1, 1, "Conv", [16, 3, 2, None, 1, "nn.LeakyReLU(negative_slope=0.2)"]]))
    assert model.model[1].act.negative_slope == 0.2
    assert (
        type(build(changed(1, [-1, 1, "Conv", [16, 3, 2, 1, 1, False]])).model[1].act).__name__ == "Identity"
    )


@pytest.mark.parametrize("text", ["__import__('os')", "nn.SiLU(); x", "Softplus"])
def test_an_activation_is_never_evaluated(text):
    with pytest.raises(ModelError, match=r"row 0 .Conv.: unknown activation"):
        build({**TINY, "activation": text})
