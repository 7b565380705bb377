"""Negative controls: what a backend lacks is found, with its own words; what is portable is not blamed.

The plain dispatch trace of torch shows none of the decomposed ones: they look like one operator that the
backend has, or like one that is nowhere in its list.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import anyolo
from anyolo.audit import emulated, inventory, recording
from anyolo.audit.jobs import JOBS, Work
from anyolo.config.schema import LossConfig, OptimConfig
from anyolo.families import FAMILIES, build_model
from anyolo.families.checkpoints import Checkpoint
from anyolo.structures import Preprocess

SCATTER = "DirectML scatter doesn't allow partially modified dimensions"
FALLS_BACK = "is not currently supported on the DML backend and will fall back to run on the CPU"


def adamw_update():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], foreach=False)
    weight.grad = torch.ones(3)
    optimizer.step()


def select_backward():
    x = torch.rand(4, 3, requires_grad=True)
    x.index_select(0, torch.tensor([0, 2])).sum().backward()


@torch.inference_mode()
def look_in_inference_mode():
    return torch.rand(2, 4).view(4, 2)


REFUSED = {
    "unique counts": (
        lambda: torch.unique(torch.arange(4.0), return_counts=True),
        "aten::_unique2",
        "Return counts not implemented for unique operator for DirectML.",
    ),
    "unique inverse": (
        lambda: torch.unique(torch.arange(4.0), return_inverse=True),
        "aten::_unique2",
        "Return inverse not implemented for unique operator for DirectML.",
    ),
    "scatter along a negative dim": (
        lambda: torch.zeros(2, 8).scatter_(-1, torch.zeros(2, 1, dtype=torch.int64), 1.0),
        "aten::scatter_.value",
        SCATTER,
    ),
    "one-hot": (lambda: F.one_hot(torch.tensor([0, 2]), 4), "aten::scatter_.value", SCATTER),
    "scatter_add with repeats": (
        lambda: torch.zeros(4).scatter_add_(0, torch.tensor([1, 1]), torch.ones(2)),
        "aten::scatter_add_",
        "later values overwrite earlier ones",
    ),
    "float64": (
        lambda: torch.ones(3, dtype=torch.float64) * 2,
        "aten::mul.Tensor",
        "The GPU device does not support Double (Float64) operations!",
    ),
    "float64 made of float32": (
        lambda: torch.ones(3).double(),
        "aten::_to_copy",
        "The GPU device does not support Double (Float64) operations!",
    ),
    "float times bool": (
        lambda: torch.rand(3) * (torch.rand(3) > 0.5),
        "aten::mul.Tensor",
        "float * bool silently becomes bool",
    ),
    "eye": (lambda: torch.eye(3), "aten::eye", "torch.eye returns an empty tensor"),
    "padding of both signs": (
        lambda: F.pad(torch.rand(1, 1, 4, 4), (1, -1)),
        "aten::constant_pad_nd",
        "doesn't support a mix of positive and negative padding values",
    ),
    "repeat of five axes": (
        lambda: torch.rand(2).repeat(1, 1, 1, 2, 1),
        "aten::repeat",
        "the dimesion of repeats must be 4 or lower",
    ),
    "average with its own divisor": (
        lambda: F.avg_pool2d(torch.rand(1, 1, 4, 4), 2, divisor_override=3),
        "aten::avg_pool2d",
        "Divisor override isn't supported for DirectML.",
    ),
    "inference_mode": (
        look_in_inference_mode,
        "aten::view",
        "Cannot set version_counter for inference tensor",
    ),
}
FALLEN_BACK = {
    "BCE with logits": (
        lambda: F.binary_cross_entropy_with_logits(torch.rand(3), torch.ones(3)),
        "aten::log_sigmoid_forward",
        "aten::binary_cross_entropy_with_logits",
    ),
    "matrix times vector": (
        lambda: torch.rand(4, 3).softmax(1).matmul(torch.rand(3)),
        "aten::addmv.out",
        "aten::mv",
    ),
    "lerp of AdamW": (adamw_update, "aten::lerp.Scalar_out", "aten::lerp_.Scalar"),
    "backward of index_select": (select_backward, "aten::index_add.out", "aten::index_add"),
    "binary cross entropy": (
        lambda: F.binary_cross_entropy(torch.rand(3), torch.ones(3)),
        "aten::binary_cross_entropy",
        "",
    ),
}


def rows_of(step, verdict, backend="directml"):
    return [row for row in anyolo.audit(step, backend=backend).rows if row.verdict == verdict]


@pytest.mark.parametrize("name", REFUSED)
def test_what_directml_refuses_is_found_in_its_own_words(name):
    step, op, words = REFUSED[name]
    found = [row for row in rows_of(step, "unsupported") if row.op == op]
    assert found, "not found"
    assert words in found[0].message
    assert found[0].where.rpartition(":")[0] == __file__
    assert found[0].source


@pytest.mark.parametrize("name", FALLEN_BACK)
def test_what_falls_back_on_directml_is_found_inside_what_was_called(name):
    step, op, within = FALLEN_BACK[name]
    (found,) = rows_of(step, "fallback")
    assert (found.op, found.within) == (op, within)
    assert found.message.startswith(f"The operator '{op}' {FALLS_BACK}")
    assert not rows_of(step, "unsupported")


@pytest.mark.parametrize(
    "step",
    [
        lambda: F.softplus(torch.rand(3)) - torch.rand(3) * torch.rand(3),
        lambda: torch.zeros(8, 2).scatter_(0, torch.zeros(1, 2, dtype=torch.int64), 1.0),
        lambda: torch.unique(torch.arange(4.0)),
        lambda: torch.rand(2).repeat(1, 2, 1, 2),
        lambda: F.pad(torch.rand(1, 1, 4, 4), (1, 1, 0, 0)),
        lambda: (torch.rand(3) > 0.5).float() * torch.rand(3),
        lambda: torch.rand(4, 3).softmax(1).matmul(torch.rand(3, 1)),
        lambda: torch.optim.SGD([nn.Parameter(torch.ones(3))], momentum=0.9, foreach=False).step(),
        lambda: float(torch.tensor(1.0, dtype=torch.float64)),  # a number on its way, not a tensor
    ],
)
def test_the_portable_spelling_is_not_blamed(step):
    found = anyolo.audit(step, backend="directml")
    assert (found.unsupported, found.fallback) == (0, 0), str(found)


@pytest.mark.parametrize(
    ("backend", "step", "op"),
    [
        ("mlu270", lambda: F.silu(torch.rand(3)), "aten::silu"),
        ("mlu270", lambda: torch.zeros(4)[:2].copy_(torch.ones(2)), "aten::copy_"),
        ("catch16", lambda: torch.minimum(torch.rand(3), torch.rand(3)), "aten::minimum.out"),
        ("mps", lambda: torch.ones(3, dtype=torch.float64), "aten::empty.memory_format"),
        ("xpu", lambda: torch.ones(3, dtype=torch.float64), "aten::empty.memory_format"),
    ],
)
def test_other_backends_have_their_own_gaps(backend, step, op):
    assert [row for row in rows_of(step, "unsupported", backend) if row.op == op]


def work_of(name: str, backend: str) -> Work:
    torch.manual_seed(0)
    spec, model = build_model(name, nc=3)
    start = Checkpoint(
        model=model.eval(),
        spec=spec,
        size="",
        names=("a", "b", "c"),
        preprocess=Preprocess(),
        imgsz=None,
        meta={},
    )
    return Work(
        start=start,
        device=emulated(backend),
        size_hw=(64, 96),
        loss=LossConfig(),
        optim=OptimConfig(optimizer="SGD"),
    )


@pytest.mark.parametrize("backend", ["directml", "mlu", "npu"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_familys_work_is_native(family, backend):
    work = work_of(next(iter(FAMILIES.get(family).models)), backend)
    with recording():
        for job in JOBS.values():
            job(work)
    found = inventory(work.device, job=family)
    assert (found.unsupported, found.fallback) == (0, 0), str(found)
    assert found.count("native") > 3000
    phases = {row.phase for row in found.rows}
    assert phases == {"forward", "loss", "backward", "optimizer", "average", "decode"}


@pytest.mark.parametrize("backend", ["mlu270", "catch16"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_familys_graph_runs_on_what_only_runs_graphs(family, backend):
    work = work_of(next(iter(FAMILIES.get(family).models)), backend)
    with recording():
        JOBS["export"](work)
        JOBS["predict"](work)
    found = inventory(work.device, job=family)
    assert found.unsupported == 0, str(found)
    assert found.count("native") + found.count("unknown") > 200
