"""Settings: words and values in, a checked verb out; what is wrong is named with what is allowed."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyolo.config import schema
from anyolo.config.load import Layer, dump, load, read_settings, write_settings
from anyolo.config.schema import DemoVerb, ExportVerb, InfoVerb, PredictVerb, TrainVerb, ValVerb
from anyolo.config.settings import ALIASES, settings_of
from anyolo.errors import ConfigError, UnknownName

VERBS = [TrainVerb, ValVerb, PredictVerb, ExportVerb, InfoVerb, DemoVerb]


def test_nothing_given_is_the_schemas_defaults():
    loaded = load(TrainVerb, {})
    assert loaded.config == TrainVerb()
    assert loaded.explicit == frozenset()


def test_a_flat_key_reaches_its_room_and_is_explicit():
    loaded = load(TrainVerb, {"lr0": 0.02, "imgsz": 416, "name": "mine"})
    assert loaded.config.optim.lr0 == 0.02
    assert loaded.config.data.imgsz == 416
    assert loaded.config.run.name == "mine"
    assert loaded.explicit == {"lr0", "imgsz", "name"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "50", 50),
        ("epochs", " 50 ", 50),
        ("lr0", "1e-3", 0.001),
        ("amp", "True", True),
        ("amp", "no", False),
        ("amp", "0", False),
        ("cache", "ram", "ram"),
        ("cache", "RAM", "ram"),
        ("cache", "true", True),
        ("resume", "yes", True),
        ("resume", "runs/last.pt", "runs/last.pt"),
        ("pretrained", "False", False),
        ("optimizer", "adamw", "AdamW"),
        ("imgsz", "640", 640),
        ("imgsz", "640,416", (640, 416)),
        ("imgsz", "[640, 416]", (640, 416)),
        ("imgsz", "(640,416)", (640, 416)),
        ("classes", "0,2", (0, 2)),
        ("classes", "3", (3,)),
        ("classes", "[1]", (1,)),
        ("classes", "None", None),
        ("freeze", "10", 10),
        ("freeze", "0,1,2", (0, 1, 2)),
        ("time", "None", None),
        ("time", "0.5", 0.5),
        ("device", "0", "0"),
        ("name", "None", "None"),
        ("name", "true", "true"),
    ],
)
def test_words_of_the_command_line_become_values(key, text, value):
    found = dump(load(TrainVerb, {key: text}).config)[key]
    assert found == (list(value) if isinstance(value, tuple) else value)
    assert type(found) is (list if isinstance(value, tuple) else type(value))


def test_python_values_are_taken_as_they_are():
    config = load(
        TrainVerb, {"model": Path("a/b.pt"), "device": 0, "classes": [1, 2], "imgsz": [320, 416]}
    ).config
    assert config.model.model == str(Path("a/b.pt"))
    assert config.device.device == "0"
    assert config.data.classes == (1, 2)
    assert config.data.imgsz == (320, 416)
    assert load(PredictVerb, {"source": 0}).config.predict.source == "0"
    assert load(PredictVerb, {"classes": 2}).config.predict.classes == (2,)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("lr0", "-1", "a number, above 0"),
        ("lr0", math.nan, "a number, above 0"),
        ("lr0", "inf", "a number, above 0"),
        ("lr0", "fast", "a number"),
        ("epochs", "0", "a whole number, at least 1"),
        ("epochs", "1.5", "a whole number"),
        ("epochs", True, "a whole number"),
        ("momentum", 1.0, "a number, at least 0, below 1"),
        ("mosaic", "2", "a number, from 0 to 1"),
        ("fraction", "0", "a number, above 0, at most 1"),
        ("optimizer", "lion", "auto, SGD, Adam, AdamW or RMSProp"),
        ("cache", "tape", "True, False, ram or disk"),
        ("amp", "maybe", "True or False"),
        ("imgsz", "640,416,3", "a whole number or number,number"),
        ("imgsz", "big", "a whole number or number,number"),
        ("imgsz", "", "a whole number or number,number"),
        ("classes", "a,b", "a list 0,1,2 or None"),
        ("name", ["a"], "text"),
        ("time", "0", "a number or None, above 0"),
    ],
)
def test_a_wrong_value_says_what_is_allowed(key, value, allowed):
    with pytest.raises(ConfigError) as caught:
        load(TrainVerb, {key: value})
    assert f"{key}={value!r}" in caught.value.message
    assert allowed in caught.value.message
    assert caught.value.hint.startswith(f"{key}: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("epoch", "epochs"), ("lr_0", "lr0"), ("batchsize", "batch"), ("optimiser", "optimizer")],
)
def test_an_unknown_key_gets_a_suggestion(typed, meant):
    with pytest.raises(UnknownName) as caught:
        load(TrainVerb, {typed: 1})
    assert typed in caught.value.message
    assert repr(meant) in caught.value.hint


@pytest.mark.parametrize(
    ("alias", "key"), [(a, k) for a, k in ALIASES.items() if k in settings_of(TrainVerb)]
)
def test_words_of_other_tools_are_understood(alias, key):
    given_value = {"model": "x.pt", "batch": 4, "imgsz": 320, "conf": 0.5, "iou": 0.5}[key]
    for written in (alias, alias.replace("_", "-")):
        loaded = load(TrainVerb, {written: given_value})
        assert dump(loaded.config)[key] == given_value
        assert loaded.explicit == {key}


def test_every_alias_means_a_setting_of_some_verb():
    known = set().union(*(settings_of(verb) for verb in VERBS))
    assert set(ALIASES.values()) <= known
    assert not set(ALIASES) & known


def test_a_key_given_twice_must_agree():
    assert load(TrainVerb, {"batch": 4, "batch-size": 4}).config.data.batch == 4
    with pytest.raises(ConfigError, match="batch is given twice"):
        load(TrainVerb, {"batch": 4, "batch-size": 8})


def test_layers_lie_beneath_the_explicit_values_in_order():
    layers = [Layer("recipe", {"lr0": 0.1, "momentum": 0.5, "box": 1.0}), ("mine", {"momentum": 0.6})]
    loaded = load(TrainVerb, {"box": 2.0}, layers=layers)
    assert (loaded.config.optim.lr0, loaded.config.optim.momentum, loaded.config.loss.box) == (0.1, 0.6, 2.0)
    assert loaded.explicit == {"box"}


def test_an_unknown_key_in_a_layer_names_it_unless_tolerant():
    with pytest.raises(UnknownName) as caught:
        load(ValVerb, {}, layers=[Layer("the recipe", {"lr0": 0.1})])
    assert caught.value.where == "the recipe"
    assert load(ValVerb, {}, layers=[Layer("the recipe", {"lr0": 0.1}, tolerant=True)]).config == ValVerb()


def test_a_hyp_file_is_the_users_own_choice(tmp_path):
    file = tmp_path / "hyp.yaml"
    file.write_text("# mine\nlr0: 1e-2\nmosaic: 0.5\nbox: 3\n")
    loaded = load(
        TrainVerb, {"hyp": str(file), "box": 4.0}, layers=[Layer("recipe", {"lr0": 0.1, "mosaic": 0.0})]
    )
    assert (loaded.config.optim.lr0, loaded.config.augment.mosaic, loaded.config.loss.box) == (0.01, 0.5, 4.0)
    assert loaded.explicit == {"lr0", "mosaic", "box"}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("lr0: 0.01\nlro: 1\n", 2, "unknown setting 'lro'"),
        ("lr0: 0.01\nmomentum: 3\n", 2, "momentum=3 is not allowed"),
        ("a: [1\nb: 2\n", 2, "not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_line(tmp_path, text, line, words):
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(TrainVerb, {"hyp": str(file)})
    assert caught.value.where == f"{file}:{line}"
    assert words in caught.value.message


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "words"])
def test_a_file_without_settings_is_refused(tmp_path, text):
    file = tmp_path / "hyp.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="key: value"):
        read_settings(file)


def test_absent_binary_and_empty_files(tmp_path):
    with pytest.raises(ConfigError, match="no such settings file"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path)
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "picture.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_settings(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize("verb", VERBS)
def test_dump_is_flat_json_and_comes_back(verb, tmp_path):
    flat = dump(verb())
    assert json.loads(json.dumps(flat)) == flat
    assert load(verb, flat).config == verb()
    write_settings(verb(), tmp_path / "args.yaml")
    assert load(verb, read_settings(tmp_path / "args.yaml")).config == verb()


@given(
    lr0=st.floats(1e-9, 1e3),
    classes=st.none() | st.lists(st.integers(0, 99), min_size=1).map(tuple),
    imgsz=st.integers(32, 4096) | st.tuples(st.integers(32, 4096), st.integers(32, 4096)),
    cache=st.sampled_from([True, False, "ram", "disk"]),
    name=st.text(),
)
def test_any_config_survives_a_round_trip(lr0, classes, imgsz, cache, name):
    values = {"lr0": lr0, "classes": classes, "imgsz": imgsz, "cache": cache, "name": name}
    config = load(TrainVerb, values).config
    assert load(TrainVerb, dump(config)).config == config
    typed = {
        key: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for key, value in values.items()
    }
    assert load(TrainVerb, typed).config == config


@pytest.mark.parametrize("verb", VERBS)
def test_a_key_of_several_rooms_means_one_thing(verb):
    for key, places in settings_of(verb).items():
        assert len({(p.annotation, p.default) for p in places}) == 1, key


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_has_help_and_a_valid_default(verb):
    for key, (setting, *_) in settings_of(verb).items():
        assert setting.help, key
        assert dump(load(verb, {key: setting.default}).config)[key] == dump(verb())[key]


def test_rooms_are_frozen_keyword_only_dataclasses():
    for thing in vars(schema).values():
        if isinstance(thing, type) and is_dataclass(thing) and thing.__module__ == schema.__name__:
            assert thing.__dataclass_params__.frozen
            assert all(f.kw_only for f in fields(thing))


@pytest.mark.parametrize(
    "typed, batch, size", [("16", 16, 16), (-1, -1, 0), ("-1", -1, 0), ("0.8", 0.8, 0), (1.0, 1, 1)]
)
def test_a_batch_may_still_have_to_be_found(typed, batch, size):
    config = load(TrainVerb, {"batch": typed}).config
    assert (config.data.batch, config.data.batch_size) == (batch, size)
    assert load(TrainVerb, dump(config)).config == config


@pytest.mark.parametrize("typed", [0, -2, 1.5, "0.0", True, None])
def test_other_batches_are_refused_with_what_is_allowed(typed):
    with pytest.raises(ConfigError) as caught:
        load(TrainVerb, {"batch": typed})
    assert "a whole number at least 1, -1 or a number above 0 and below 1" in caught.value.message
    with pytest.raises(ConfigError):
        load(ValVerb, {"batch": -1})
