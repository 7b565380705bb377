"""The operator tests: nothing on a right CPU, every kind of wrong device found and named."""

from __future__ import annotations

import warnings

import pytest
import torch

from anyolo.audit.cases import Draw
from anyolo.audit.compare_operators import all_cases, cases_for, compare_operators, operator_findings
from anyolo.audit.host import Host
from anyolo.audit.numerics import type_name
from anyolo.devices import emulate, open_device
from tests.conformance import broken_devices as broken
from tests.conformance.broken_devices import Broken
from tests.conformance.test_doctor_network import Listening, operators_of_the_job

FLOAT = torch.float32


def examine(device, operators=(), dtype=FLOAT):
    """Findings of the cases whose operator begins with one of these words, or of all."""
    cases = [c for c in cases_for(device, dtype) if not operators or c.operator.startswith(operators)]
    assert cases
    return operator_findings(compare_operators(device, dtype, cases))


@pytest.mark.parametrize("dtype", [FLOAT, torch.bfloat16, torch.float16], ids=type_name)
@pytest.mark.parametrize("kind", [Host, lambda: open_device("cpu")], ids=["plain", "fast"])
def test_a_right_device_gives_no_finding(kind, dtype):
    device = kind()
    outcomes = list(compare_operators(device, dtype, cases_for(device, dtype)))
    assert len(outcomes) > 60
    assert [finding.message for finding in operator_findings(outcomes)] == []
    assert all(o.verdict == "right" and o.error <= o.allowed for o in outcomes)


def test_the_tolerance_is_rounding_and_not_more():
    """The CPU's own float32 stays a factor of four below what is allowed: the table hides nothing."""
    device = Host()
    outcomes = list(compare_operators(device, FLOAT, cases_for(device, FLOAT)))
    assert max(o.host_error for o in outcomes) < 5e-6
    assert max(o.allowed for o in outcomes) == pytest.approx(2e-5)


FAULTS = [
    (broken.float_times_bool, "float times bool", "error", "wrong", "result is bool instead of float32"),
    (broken.late_cumsum, "cumsum", "error", "wrong", "in 5 of 5 tests (float32)"),
    (broken.convolution_off, "conv2d", "error", "wrong", "off by 0.01 of the largest value"),
    (broken.stale_topk, "topk", "error", "wrong", "of a strided view"),
    (broken.signed_bytes, "uint8 to float", "error", "wrong", "instead of"),
    (broken.norm_backward_in_channels_last, "batch_norm, training", "error", "wrong", "issues/175189"),
    (broken.dense_addcdiv, "addcmul_, addcdiv_", "error", "wrong", "issues/118115"),
    (broken.no_gather, "gather", "error", "raised", "The operator 'aten::gather' is not implemented"),
    (broken.nan_silu, "silu", "error", "wrong", "elements are not finite"),
    (broken.crude_sigmoid, "sigmoid", "warning", "inexact", "off by 0.000"),
    (broken.short_convolution, "conv2d", "info", "inexact", "11 bits"),
    (broken.wrong_atan, "overlap of boxes", "error", "wrong", "in 2 of 2 tests"),
]


@pytest.mark.parametrize(
    "change, operator, severity, verdict, words", FAULTS, ids=[f[0].__name__ for f in FAULTS]
)
def test_a_wrong_device_is_found_and_the_operator_named(change, operator, severity, verdict, words):
    findings = examine(Broken(change), (operator,))
    own = [f for f in findings if f.where == f"operator {operator}"]
    assert [(f.id, f.severity) for f in own] == [(f"operator.{verdict}", severity)]
    assert words in own[0].message


def test_nothing_but_the_fault_is_found():
    found = {f.where for f in examine(Broken(broken.late_cumsum))}
    # the way back of the second is a cumsum, in new torch
    assert "operator cumsum" in found <= {"operator cumsum", "operator cumprod"}
    found = {f.where for f in examine(Broken(broken.float_times_bool))}
    assert found == {"operator float times bool", "operator amax", "operator amin"}  # on their way back


def test_a_fault_in_half_precision_only_is_found():
    def change(func, args, kwargs):
        if func is torch.ops.aten.silu.default and args[0].dtype == torch.bfloat16:
            return func(*args, **kwargs) * 1.1
        return NotImplemented

    device = Broken(change)
    assert examine(device, ("silu",)) == []
    (finding,) = examine(device, ("silu",), torch.bfloat16)
    assert (finding.severity, finding.where) == ("error", "operator silu")
    assert "bfloat16" in finding.message


def test_what_anyolo_does_not_call_may_be_refused():
    def change(func, args, kwargs):
        if func is torch.ops.aten._unique2.default:
            raise RuntimeError("no unique here")
        return NotImplemented

    (finding,) = examine(Broken(change), ("unique",))
    assert finding.severity == "warning"
    assert "RuntimeError: no unique here" in finding.message
    assert "anyolo does not call it so" in finding.message


def test_a_silent_fault_on_record_outside_anyolo_is_a_warning():
    """As on a real DirectML card: its bool times float is known to be wrong; nothing of anyolo needs it."""
    (finding,) = examine(Broken(broken.float_times_bool, name="directml"), ("float times bool",))
    assert finding.severity == "warning"
    assert "On record: " in finding.message


def test_what_the_backend_says_is_passed_on():
    def change(func, args, kwargs):
        if func is torch.ops.aten.atan.default:
            warnings.warn("atan will fall back to run on the CPU", stacklevel=2)
        return NotImplemented

    (finding,) = examine(Broken(change), ("atan",))
    assert (finding.id, finding.severity) == ("operator.warned", "warning")
    assert "atan will fall back to run on the CPU" in finding.message


def test_an_emulated_device_names_what_its_backend_refuses():
    findings = examine(
        emulate("directml"), ("scatter", "unique", "lerp", "conv2d", "cumsum", "float times bool")
    )
    by_place = {f.where: f for f in findings}
    assert "Return counts not implemented for unique operator" in by_place["operator unique"].message
    assert "partially modified dimensions" in by_place["operator scatter"].message
    assert "operator float times bool" in by_place
    assert by_place["operator lerp"].id == "operator.warned"
    assert "fall back to run on the CPU" in by_place["operator lerp"].message
    assert "operator conv2d" not in by_place and "operator cumsum" not in by_place
    assert not any(f.severity == "error" for f in findings), "anyolo calls none of these"


def test_inference_only_backends_are_not_asked_to_train():
    device = emulate("mlu270")
    assert {case.part for case in cases_for(device, FLOAT)} == {"network", "decode"}


def test_every_case_has_a_name_of_its_own_and_inputs_that_stay():
    cases = all_cases()
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    for case in cases:
        for a, b in zip(case.make(Draw()), case.make(Draw()), strict=True):
            assert torch.equal(a, b), case.name


def test_every_operator_of_training_and_inference_has_a_case():
    device = Listening()
    used = [case for case in cases_for(device, FLOAT) if case.is_used]
    list(compare_operators(device, FLOAT, used))
    # what only makes or renames memory has no numbers to be wrong
    plumbing = {
        "detach",
        "alias",
        "empty",
        "empty_like",
        "lift_fresh",
        "clone",
        "zeros",
        "zeros_like",
        "ones_like",
    }
    plumbing |= {"scalar_tensor", "_reshape_alias", "new_zeros", "new_empty_strided", "zero_", "fill_"}
    missing = operators_of_the_job() - device.mode.names - plumbing
    assert not missing, f"give these a case in audit/tensor_cases.py or layer_cases.py: {sorted(missing)}"
