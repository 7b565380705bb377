"""Device strings and what Python users write in their place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyolo.config.load import dump, load
from anyolo.config.schema import DevicesVerb, PredictVerb
from anyolo.config.spelling import device_words
from anyolo.devices.names import DeviceName, parse, shares
from anyolo.errors import ConfigError

BACKENDS = st.sampled_from(["cpu", "cuda", "mps", "xpu", "npu", "mlu", "directml", "dml", "toaster-2"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cpu", DeviceName("cpu")),
        ("CPU ", DeviceName("cpu")),
        ("cuda:1", DeviceName("cuda", (1,))),
        ("0", DeviceName("", (0,))),
        ("0,1", DeviceName("", (0, 1))),
        ("[0, 1]", DeviceName("", (0, 1))),
        ("(0,)", None),
        ("cuda:0,1", DeviceName("cuda", (0, 1))),
        ("npu:0,npu:1", DeviceName("npu", (0, 1))),
        ("privateuseone:0", DeviceName("privateuseone", (0,))),
        ("-1", DeviceName("", (-1,))),
        ("cuda:-1", DeviceName("cuda", (-1,))),
        ("auto", DeviceName("")),
        ("", DeviceName("")),
        ("None", DeviceName("")),
        ("emulate:DirectML", DeviceName("directml", (), True)),
        ("emulate:", DeviceName("", (), True)),
        ("cuda:", None),
        (",", None),
        ("0,,1", None),
        ("0,0", None),
        ("cuda:1,cuda:1", None),
        ("-1,-1", None),
        ("-1,0", None),
        ("-2", None),
        ("cuda:-2", None),
        ("cuda:x", None),
        ("cuda:²", None),
        ("cuda,mps", None),
        ("cuda:0,mps:1", None),
        ("cuda,1", None),
        ("0,cuda:1", None),
    ],
)
def test_strings(text: str, wanted: DeviceName | None) -> None:
    if wanted is not None:
        assert parse(text) == wanted
        return
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert repr(text) in caught.value.message and caught.value.where == "device" and caught.value.hint


@given(BACKENDS, st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))
def test_every_way_to_name_devices_means_the_same(backend: str, indices: list[int]) -> None:
    wanted = (backend, tuple(indices), False)
    numbers = ",".join(map(str, indices))
    assert parse(f"{backend}:{numbers}") == wanted
    assert parse(",".join(f"{backend}:{index}" for index in indices)) == wanted
    assert parse(f" {backend.upper()} : {numbers.replace(',', ' , ')}") == wanted
    assert parse(numbers) == parse(device_words(indices)) == ("", tuple(indices), False)


@given(st.text(max_size=12))
def test_any_text_is_understood_or_refused_with_a_hint(text: str) -> None:
    try:
        found = parse(text)
    except ConfigError as error:
        assert error.hint
    else:
        assert found.backend == found.backend.strip() and all(index >= -1 for index in found.indices)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (0, "0"),
        (-1, "-1"),
        ([0, 1], "0,1"),
        ((0,), "0"),
        (["cuda:0", torch.device("cuda:1")], "cuda:0,cuda:1"),
        ([], ""),
        (None, "auto"),
        ("cuda:1", "cuda:1"),
        (torch.device("cpu"), "cpu"),
        (torch.device("cuda", 1), "cuda:1"),
        (torch.device("mps"), "mps"),
        (torch.tensor(1), "1"),
    ],
)
def test_python_values(given: object, wanted: str) -> None:
    assert device_words(given) == wanted
    assert load(PredictVerb, {"device": given}).config.device.device == wanted
    assert load(DevicesVerb, {"device": given}).config.device == wanted
    config = load(PredictVerb, {"device": given}).config
    assert load(PredictVerb, dump(config)).config == config


@pytest.mark.parametrize("given", [True, 1.5, [1.5], {"a": 1}, [[True]], object()])
def test_values_that_are_no_device(given: object) -> None:
    with pytest.raises(ConfigError, match=r"device=.* is not allowed: it takes text"):
        load(PredictVerb, {"device": given})


@given(st.integers(1, 512), st.integers(1, 16))
def test_shares_come_out_even_or_name_the_nearest_that_do(batch: int, devices: int) -> None:
    if batch % devices == 0:
        assert shares(batch, devices) * devices == batch
        return
    with pytest.raises(ConfigError) as caught:
        shares(batch, devices)
    sizes = [int(word.strip(".").removeprefix("batch=")) for word in caught.value.hint.split() if "=" in word]
    assert sizes and all(size % devices == 0 and size > 0 and abs(size - batch) < devices for size in sizes)
    assert len(sizes) == (2 if batch > devices else 1)


def test_shares_of_seven() -> None:
    with pytest.raises(ConfigError, match="a batch of 7 does not divide among 2 devices") as caught:
        shares(7, 2)
    assert caught.value.hint == "Use batch=6 or batch=8."
