"""Operator tables: every predicate both ways, the names of a list, what is lacking, what a file may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from anyolo.devices import DEVICES, emulate
from anyolo.devices.operators import (
    FACTS,
    PREDICATES,
    OperatorRule,
    OperatorTable,
    bind,
    composite_key,
    full_name,
    out_form,
)

ATEN = torch.ops.aten
X = torch.rand(2, 3)
BOOL = torch.ones(2, 3, dtype=torch.bool)
INDEX = torch.zeros(2, 3, dtype=torch.int64)
RAMP = torch.tensor([[0, 1, 2], [0, 1, 2]])

# (predicate, setting, operator, arguments, keywords, whether it holds)
CASES: list[tuple[str, Any, Any, tuple[Any, ...], dict[str, Any], bool]] = [
    ("equal", {"return_counts": True}, ATEN._unique2.default, (X, True, False, True), {}, True),
    ("equal", {"return_counts": True}, ATEN._unique2.default, (X,), {"return_counts": True}, True),
    ("equal", {"return_counts": True}, ATEN._unique2.default, (X,), {}, False),
    ("given", "divisor_override", ATEN.avg_pool2d.default, (X, [1, 1]), {"divisor_override": 2}, True),
    ("given", "divisor_override", ATEN.avg_pool2d.default, (X, [1, 1]), {}, False),
    ("longer", {"repeats": 4}, ATEN.repeat.default, (X, [1, 1, 1, 2, 1]), {}, True),
    ("longer", {"repeats": 4}, ATEN.repeat.default, (X, [1, 1, 1, 2]), {}, False),
    ("self_dtype", ["bool", "uint8"], ATEN.masked_fill.Scalar, (BOOL, BOOL, 1), {}, True),
    ("self_dtype", ["bool", "uint8"], ATEN.masked_fill.Scalar, (X, BOOL, 1), {}, False),
    ("mixes_bool", True, ATEN.mul.Tensor, (X, BOOL), {}, True),
    ("mixes_bool", True, ATEN.mul.Tensor, (BOOL, X), {}, True),
    ("mixes_bool", True, ATEN.mul.Tensor, (BOOL, BOOL), {}, False),
    ("mixes_bool", True, ATEN.mul.Tensor, (X, X), {}, False),
    ("mixes_signs", "pad", ATEN.constant_pad_nd.default, (X, [1, -1]), {}, True),
    ("mixes_signs", "pad", ATEN.constant_pad_nd.default, (X, [0, -1]), {}, False),
    ("mixes_signs", "pad", ATEN.constant_pad_nd.default, (X, [1, 0]), {}, False),
    ("shapes_differ", ["index", "src"], ATEN.scatter.src, (X, 1, INDEX[:, :1], X), {}, True),
    ("shapes_differ", ["index", "src"], ATEN.scatter.src, (X, 1, INDEX, X), {}, False),
    ("shapes_differ", ["index", "src"], ATEN.scatter.value, (X, 1, INDEX[:, :1], 1.0), {}, False),
    ("scatter_shape", True, ATEN.scatter.value, (X, 1, INDEX[:, :1], 1.0), {}, False),
    ("scatter_shape", True, ATEN.scatter.value, (X, 0, INDEX[:, :1], 1.0), {}, True),
    ("scatter_shape", True, ATEN.scatter.value, (X, -1, INDEX[:, :1], 1.0), {}, True),
    ("scatter_shape", True, ATEN.scatter.value, (X, -1, INDEX, 1.0), {}, False),
    ("repeats_index", True, ATEN.scatter_add.default, (X, 1, INDEX, X), {}, True),
    ("repeats_index", True, ATEN.scatter_add.default, (X, 1, RAMP, X), {}, False),
    ("repeats_index", True, ATEN.scatter_add.default, (X, 0, RAMP, X), {}, True),
    ("repeats_index", True, ATEN.scatter_add.default, (X, 0, INDEX[:0], X[:0]), {}, False),
    ("writes_part", True, ATEN.copy_.default, (X[:, :2], X[:, :2]), {}, True),
    ("writes_part", True, ATEN.copy_.default, (X, X), {}, False),
    ("inference_mode", True, ATEN.view.default, (X, [6]), {}, False),
]


@pytest.mark.parametrize(("word", "setting", "func", "args", "kwargs", "holds"), CASES)
def test_predicates(word: str, setting: Any, func: Any, args: Any, kwargs: Any, holds: bool) -> None:
    rule = OperatorRule(operators=(func._schema.name,), severity="error", message="no", when={word: setting})
    assert rule.matches(func._schema.name) and rule.applies(bind(func, args, kwargs)) is holds
    assert rule.condition and "{" not in rule.condition
    table = OperatorTable(backend="x", native=frozenset({full_name(func)}), rules=(rule,))
    found = table.judge(func, args, kwargs)
    assert found is not None and found.verdict == ("unsupported" if holds else "native")
    assert found.message == ("no" if holds else "")


def test_every_predicate_is_tried_and_has_words() -> None:
    from anyolo.devices import operators

    assert {case[0] for case in CASES} == set(PREDICATES) == set(operators._WORDS)
    rule = OperatorRule(operators=("aten::view",), severity="error", when={"inference_mode": True})
    with torch.inference_mode():
        assert rule.applies({})


def test_a_rule_of_unknown_words_is_refused() -> None:
    with pytest.raises(ValueError, match="reurn_counts"):
        OperatorRule(operators=("aten::x",), severity="error", when={"reurn_counts": True})
    with pytest.raises(ValueError, match="OSError"):
        OperatorRule(operators=("aten::x",), severity="error", error="OSError")


def test_rules_hold_in_order_and_patterns_are_of_the_shell() -> None:
    rules = (
        OperatorRule(
            operators=("aten::scatter*",), severity="fallback", message="slow", when={"given": "src"}
        ),
        OperatorRule(operators=("aten::scatter_add.out",), severity="broken", message="wrong"),
    )
    table = OperatorTable(backend="x", native=frozenset(), rules=rules)
    assert table.judge(ATEN.scatter_add.default, (X, 0, INDEX, X), {}).verdict == "fallback"
    assert table.judge(ATEN.scatter_add.out, (X, 0, INDEX, X), {"out": X}).message == "slow"
    assert table.judge(ATEN.log_sigmoid_forward.default, (X,), {}).verdict == "fallback", "not listed"


class TestListsOfNames:
    def table(self, *names: str) -> OperatorTable:
        native = frozenset(f"aten::{name}" for name in names)
        return OperatorTable(
            backend="x", native=native, unlisted="unsupported", unlisted_message="no {op} here"
        )

    @pytest.mark.parametrize("listed", ["mul.out", "mul.Tensor", "mul_.Tensor"])
    def test_three_forms_are_one_kernel_where_torch_makes_them_one(self, listed: str) -> None:
        table = self.table(listed)
        for func in (ATEN.mul.Tensor, ATEN.mul_.Tensor):
            assert table.judge(func, (), {}) == ("native", "", RuntimeError, ""), func
        assert table.judge(ATEN.mul.Scalar, (), {}) is None, "made of mul.Tensor and a number"

    def test_an_out_form_is_not_its_composite_function(self) -> None:
        name = ATEN.binary_cross_entropy_with_logits.default
        assert self.table("binary_cross_entropy_with_logits.out").judge(name, (), {}) is None
        assert self.table("binary_cross_entropy_with_logits").judge(name, (), {}).verdict == "native"

    def test_one_overload_is_not_another(self) -> None:
        table = self.table("clamp.out")
        assert table.judge(ATEN.clamp.default, (), {}).verdict == "native"
        assert table.judge(ATEN.clamp.Tensor_out, (), {}).verdict == "unsupported"
        assert table.judge(ATEN.clamp.Tensor, (), {}) is None
        assert out_form(ATEN.clamp.Tensor) is ATEN.clamp.Tensor_out
        assert out_form(ATEN.max.dim) is ATEN.max.dim_max
        assert out_form(ATEN.add_.Tensor) is ATEN.add.out
        assert out_form(ATEN.binary_cross_entropy_with_logits.default) is None

    def test_convolutions_have_another_name_on_a_device(self) -> None:
        table = self.table("convolution_overrideable", "convolution_backward_overrideable")
        assert table.judge(ATEN.convolution.default, (), {}).verdict == "native"
        assert table.judge(ATEN.convolution_backward.default, (), {}).verdict == "native"

    def test_what_is_not_listed_is_named_in_the_backends_words(self) -> None:
        found = self.table().judge(ATEN.addmv.out, (), {})
        assert found is not None and found.message == "no aten::addmv.out here"
        with pytest.raises(NotImplementedError, match=r"no aten::addmv.out here"):
            raise found.raised()

    def test_views_and_memory_are_everybodys(self) -> None:
        for func in (ATEN.view.default, ATEN.transpose.int, ATEN.empty.memory_format, ATEN.copy_.default):
            assert self.table().judge(func, (), {}).verdict == "native"

    def test_operators_of_other_libraries_are_not_known(self) -> None:
        func = torch.ops.prims.sin.default
        assert self.table().judge(func, (), {}).verdict == "unknown"

    def test_no_list_means_unknown(self) -> None:
        table = OperatorTable(backend="x")
        assert table.judge(ATEN.addmv.out, (), {}).verdict == "unknown"
        assert not table.lacks("addmv.out")


def test_numbers_of_a_denied_type_may_stay_on_the_host() -> None:
    table = OperatorTable(backend="x", denied_dtypes={torch.float64: "no doubles"})
    assert table.judge_dtypes([X, 2.0, torch.tensor(1.0, dtype=torch.float64)]) is None
    found = table.judge_dtypes([X, X.double()])
    assert found is not None and found.message == "no doubles" and found.error is TypeError


@pytest.mark.parametrize(
    ("backend", "lacking", "there"),
    [
        (
            "directml",
            ["lerp.Scalar", "lerp_.Scalar", "addmv", "clamp.Tensor", "log_sigmoid_forward", "amin"],
            ["silu"],
        ),
        (
            "directml",
            ["unique_consecutive", "cumprod", "index_add"],
            ["add.Tensor", "topk", "max.dim", "amax"],
        ),
        ("mlu270", ["silu", "arange", "nonzero"], ["sigmoid", "convolution"]),
        ("catch16", ["silu", "cumsum", "atan"], ["sigmoid", "convolution", "mul.Tensor"]),
        ("mlu", [], ["silu", "lerp.Scalar", "_unique2", "scatter_add"]),
        ("npu", [], ["silu", "lerp.Scalar", "_unique2", "scatter_add"]),
        ("mps", [], ["silu", "lerp.Scalar", "_unique2", "scatter_add"]),
        ("xpu", [], ["silu", "lerp.Scalar"]),
    ],
)
def test_what_the_backends_lack(backend: str, lacking: list[str], there: list[str]) -> None:
    device = emulate(backend)
    assert [name for name in lacking if not device.lacks(name)] == []
    assert [name for name in there if device.lacks(name)] == []


def test_a_device_that_runs_torchs_operators_lacks_none() -> None:
    assert not DEVICES.get("cpu")(0).lacks("lerp.Scalar")


@pytest.mark.parametrize("path", sorted(FACTS.glob("*.json")), ids=lambda path: path.stem)
class TestFacts:
    def test_names_are_torchs(self, path: Path) -> None:
        """A native name that torch never had would never match: a slip of the pen."""
        table = OperatorTable.load(path)
        assert table.backend == path.stem == DEVICES.get(path.stem).profile.name
        known = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
        for rule in table.rules:
            for pattern in rule.operators:
                assert pattern.partition(".")[0] in known, pattern
        if table.native is not None:
            own = {name.partition(".")[0] for name in table.native if name.startswith("aten::")}
            assert len(own & known) > 0.9 * len(own)

    def test_every_rule_has_a_source_and_a_confidence_and_can_be_reached(self, path: Path) -> None:
        facts = json.loads(path.read_text(encoding="utf-8"))
        for rule in facts["rules"]:
            assert rule["source"] and rule["confidence"] and rule["severity"]
            assert rule["severity"] == "fallback" or rule["message"]
        assert facts["source"] and "{op}" in facts["unlisted_message"]


def test_slips_in_a_facts_file_are_refused(tmp_path: Path) -> None:
    good = json.loads((FACTS / "xpu.json").read_text(encoding="utf-8"))
    for slip in ({"rules": [{"operators": ["x"], "severity": "error", "wen": {}}]}, {"unlistd": "fallback"}):
        (tmp_path / "x.json").write_text(json.dumps({**good, **slip}))
        with pytest.raises(TypeError, match="unexpected keyword"):
            OperatorTable.load(tmp_path / "x.json")


def test_bce_with_logits_is_seen_through() -> None:
    device = emulate("directml", record=True)
    with device.region("loss"):
        F.binary_cross_entropy_with_logits(X, X)
    names = {call.op for call in device.emulation.calls if call.verdict == "fallback"}
    assert names == {"aten::log_sigmoid_forward"}
    assert composite_key(ATEN.log_sigmoid_forward.default) is None
