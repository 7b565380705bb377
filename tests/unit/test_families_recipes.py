"""Recipes: known settings, beneath a hyp file, which lies beneath what is typed."""

from __future__ import annotations

import pytest

from anyolo.config.load import load
from anyolo.config.schema import TrainVerb
from anyolo.families import FAMILIES, find_model
from anyolo.train.optim import resolve_optimizer


def loaded(model, values):
    spec, _ = find_model(model)
    return load(TrainVerb, values, layers=[(f"recipe of {spec.name}", spec.recipe)])


@pytest.mark.parametrize("family", list(FAMILIES))
def test_recipes_hold_known_settings(family):
    load(TrainVerb, {}, layers=[("recipe", FAMILIES.get(family).recipe)])


def test_the_gains_of_the_field():
    gains = {}
    for model in ("yolov8n", "yolov5n", "yolov7-tiny", "v5lite-s", "yolo-fastestv2"):
        loss = loaded(model, {}).config.loss
        gains[model] = (loss.box, loss.cls, loss.obj, loss.anchor_t)
    assert gains == {
        "yolov8n": (7.5, 0.5, 1.0, 4.0),
        "yolov5n": (0.05, 0.5, 1.0, 4.0),
        "yolov7-tiny": (0.05, 0.5, 1.0, 4.0),
        "v5lite-s": (0.05, 0.5, 1.0, 4.0),
        "yolo-fastestv2": (3.2, 32.0, 64.0, 2.0),
    }


def test_a_hyp_file_wins_over_the_recipe_and_typed_keys_over_both(tmp_path):
    file = tmp_path / "hyp.yaml"
    file.write_text("box: 0.1\nobj: 0.7\nlr0: 0.02\n")
    config = loaded("v5lite-s", {"hyp": str(file), "obj": 0.3, "imgsz": 320}).config
    assert (config.loss.box, config.loss.obj, config.loss.cls) == (0.1, 0.3, 0.5)
    assert (config.optim.lr0, config.optim.lrf, config.optim.cos_lr) == (0.02, 0.2, True)
    assert (config.data.imgsz, config.loss.imgsz) == (320, 320)


def test_long_runs_have_the_rates_of_the_recipe_and_short_ones_their_own(tmp_path):
    run = {"images": 100, "batch": 16, "epochs": 30, "nc": 3}
    recipe = loaded("v5lite-s", {})
    config, _ = resolve_optimizer(recipe.config.optim, recipe.explicit, **{**run, "images": 10**6})
    assert (config.optimizer, config.lr0, config.lrf, config.cos_lr) == ("SGD", 0.001, 0.2, True)
    config, _ = resolve_optimizer(recipe.config.optim, recipe.explicit, **run)
    assert (config.optimizer, config.lr0, config.lrf, config.cos_lr) == ("AdamW", 0.001429, 0.01, False)
    file = tmp_path / "hyp.yaml"
    file.write_text("lr0: 0.01\nlrf: 0.1\n")
    theirs = loaded("v5lite-s", {"hyp": str(file)})
    config, note = resolve_optimizer(theirs.config.optim, theirs.explicit, **run)
    assert (config.optimizer, config.lr0, config.lrf) == ("SGD", 0.01, 0.1) and "given lr0" in note
    typed = loaded("yolov5n", {"optimizer": "AdamW"})
    config, note = resolve_optimizer(typed.config.optim, typed.explicit, **run)
    assert config.optimizer == "AdamW" and note.endswith("as asked for")
    asked = loaded("yolov5n", {"optimizer": "auto"})
    assert resolve_optimizer(asked.config.optim, asked.explicit, **run)[0].optimizer == "AdamW"
