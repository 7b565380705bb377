"""Batch norms that were folded away: measured again, the model stays what it was."""

from __future__ import annotations

import torch
from torch import nn

from anyolo.families import build_model
from anyolo.nn.unfold import measure_norms


def folded_model():
    """As read from a file without batch norms: each one only adds its bias."""
    torch.manual_seed(0)
    _, model = build_model("yolox-nano", nc=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.running_mean)
            nn.init.constant_(module.running_var, 1 - module.eps)
            nn.init.ones_(module.weight)
            nn.init.normal_(module.bias, std=0.5)
    return model.eval()


@torch.no_grad()
def test_evaluation_is_unchanged_and_training_nearly_so():
    model, images = folded_model(), torch.rand(4, 3, 96, 96)
    before = model(images).levels
    untouched = [m.clone() for m in model.train()(images).levels]
    model = folded_model()
    measure_norms(model, [images[:2], images[2:]])
    assert not model.training
    spread = [m.std() for m in before]
    for was, now, deviation in zip(before, model(images).levels, spread, strict=True):
        torch.testing.assert_close(now, was, atol=1e-3 * float(deviation), rtol=1e-3)
    # the batch that was measured: in training the norms divide by the very same deviations
    for was, now, other, deviation in zip(
        before, model.train()(images).levels, untouched, spread, strict=True
    ):
        assert (now - was).abs().max() < 0.02 * deviation
        assert (other - was).abs().max() > 0.2 * deviation


@torch.no_grad()
def test_the_statistics_are_those_of_what_the_norm_is_fed():
    model, images = folded_model(), torch.rand(3, 3, 64, 64)
    fed = {}
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: fed.update(x=inputs[0].double()))
    measure_norms(model, [images])
    torch.testing.assert_close(norm.running_mean, fed["x"].mean((0, 2, 3)).float())
    torch.testing.assert_close(norm.running_var, fed["x"].var((0, 2, 3), unbiased=False).float())
