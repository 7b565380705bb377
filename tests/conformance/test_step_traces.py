"""One training step of every family as one static graph, of operators that every backend has.

What traces under fake tensors cannot look at data: no count, no shape and no branch depends on it.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from anyolo.config.schema import LossConfig
from anyolo.families import FAMILIES, build_model
from anyolo.structures import Targets

# absent, broken or a fall back to the CPU on some backend
AVOIDED = {
    "unique", "_unique2", "unique_dim", "nonzero", "masked_select",
    "index", "index_put", "index_put_",
    "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce",
    "index_add", "bincount", "histc", "roll",
    "cumprod", "lerp", "lerp_", "addmv", "amin",
    "aminmax", "log_sigmoid_forward", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "_local_scalar_dense", "item",
}  # fmt: skip


def small_batch(images=2, side=64, nc=3):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(images, 8, 2, generator=generator) * 30
    size = 4 + torch.rand(images, 8, 2, generator=generator) * 28
    classes = torch.randint(nc, (images, 8, 1), generator=generator)
    labels = torch.cat((classes, low, low + size), 2)
    mask = torch.ones(images, 8)
    mask[1, 3:] = 0
    return torch.rand(images, 3, side, side, generator=generator), labels * mask.unsqueeze(2), mask


def step_of(name, nc=3, **settings):
    """A function of tensors only: weights, momenta and a batch to the loss and the new weights."""
    spec, model = build_model(name, nc=nc)
    model.train()
    criterion = spec.criterion(model, LossConfig(**settings))
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    fixed = {n: p for n, p in model.named_parameters() if not p.requires_grad}

    def step(weights, momenta, buffers, images, labels, mask):
        # requires_grad on leaves of this function: the graph of the whole step is traced, backward included
        leaves = [w.detach().requires_grad_() for w in weights]
        state = {**dict(zip(trained, leaves, strict=True)), **fixed, **buffers}
        output = torch.func.functional_call(model, state, (images,))
        report = criterion(output, Targets(labels, mask))
        gradients = torch.autograd.grad(report.total, leaves)
        momenta = [m * 0.9 + g for m, g in zip(momenta, gradients, strict=True)]
        return report.total, [w - 0.01 * m for w, m in zip(weights, momenta, strict=True)], momenta

    named = dict(model.named_parameters())
    weights = [named[n].detach() for n in trained]
    momenta = [torch.zeros_like(w) for w in weights]
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    return step, (weights, momenta, buffers)


WAYS = [(family, {}) for family in FAMILIES]
WAYS += [(family, {"loss_ota": True}) for family in FAMILIES if "loss_ota" in FAMILIES.get(family).recipe]


@pytest.mark.parametrize(("family", "settings"), WAYS, ids=str)
def test_step_is_one_static_graph(family, settings):
    name = next(iter(FAMILIES.get(family).models))
    torch.manual_seed(0)
    step, state = step_of(name, **settings)
    batch = small_batch()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        inputs = torch.utils._pytree.tree_map(fake.from_tensor, (*state, *batch))
    graph = make_fx(step, tracing_mode="fake")(*inputs)
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    used = {target.overloadpacket.__name__ for target in targets if isinstance(target, torch._ops.OpOverload)}
    assert "convolution_backward" in used
    assert not used & AVOIDED, sorted(used & AVOIDED)
    loss, weights, _ = graph(*state, *batch)
    expected_loss, expected, _ = step(*step_of_again(name, state), *batch)
    assert float(loss) == pytest.approx(float(expected_loss.detach()), rel=1e-5)
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(weights, expected, strict=True))


def step_of_again(name, state):
    weights, momenta, buffers = state
    return weights, momenta, {n: b.clone() for n, b in buffers.items()}
