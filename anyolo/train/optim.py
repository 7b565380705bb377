"""Optimizers: which one, and which parameters decay."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from anyolo.config.schema import OptimConfig
from anyolo.devices import Device
from anyolo.train.adam import PlainAdam

LONG_RUN_UPDATES = 10_000
SHORT_RUN = {
    "momentum": 0.9,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.0,
    "lrf": 0.01,
    "cos_lr": False,
    "warmup_epochs": 3.0,
}


def resolve_optimizer(
    config: OptimConfig, explicit: Iterable[str], *, images: int, batch: int, epochs: int, nc: int
) -> tuple[OptimConfig, str]:
    """Turn ``optimizer=auto`` into a choice, and say it in one line.

    Long runs get SGD with the rates of the family's recipe, and so does whoever gives a rate: those of the
    field's files are meant for it. Short runs get AdamW with a rate that falls with the class count, and the
    decay and warm-up that go with it, but for what the user gave.

    Source: the field's rule (Ultralytics 8.4), with SGD in place of MuSGD. On 222 pictures YOLOv5n reaches in
    30 epochs with SGD what it has after 15 with AdamW (docs/results.md).
    """
    given = set(explicit)
    updates = math.ceil(images / max(batch, config.nbs)) * epochs
    if config.optimizer != "auto":
        resolved, why = config, "as asked for" if "optimizer" in given else "the family's recipe"
    elif "lr0" in given or updates > LONG_RUN_UPDATES:
        resolved = dataclasses.replace(config, optimizer="SGD")
        why = "chosen by optimizer=auto for " + (
            "a given lr0" if "lr0" in given else f"about {updates} updates"
        )
    else:
        short: dict[str, Any] = {"lr0": round(0.002 * 5 / (4 + nc), 6), **SHORT_RUN}
        chosen = {name: value for name, value in short.items() if name not in given}
        resolved = dataclasses.replace(config, optimizer="AdamW", **chosen)
        kept = [name for name in short if name in given]
        why = f"chosen by optimizer=auto for about {updates} updates"
        why += f"; kept your {', '.join(kept)}" if kept else ""
    rates = f"lr0={resolved.lr0:g}, momentum={resolved.momentum:g}"
    return resolved, f"optimizer {resolved.optimizer} ({rates}), {why}"


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Three groups: ``weights`` decay; ``norms`` (scales of normalisation layers, and what belongs to a
    module that says ``decays = False``) and ``biases`` do not.
    """
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in model.modules():
        is_norm = isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name.endswith("bias"):
                biases.append(parameter)
            elif is_norm or not getattr(module, "decays", True):
                norms.append(parameter)
            else:
                weights.append(parameter)
    return [
        {"params": weights, "weight_decay": weight_decay, "name": "weights"},
        {"params": norms, "weight_decay": 0.0, "name": "norms"},
        {"params": biases, "weight_decay": 0.0, "name": "biases"},
    ]


def build_optimizer(
    model: nn.Module, config: OptimConfig, device: Device, *, batch: int
) -> torch.optim.Optimizer:
    """The optimizer for a resolved config; weight decay scales with the images per update."""
    accumulate = max(round(config.nbs / batch), 1)
    groups = parameter_groups(model, config.weight_decay * batch * accumulate / (config.nbs or batch))
    options: dict[str, Any] = {"lr": config.lr0, **device.optimizer_options()}
    if config.optimizer == "SGD":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0, **options)
    if config.optimizer == "RMSProp":
        options.pop("fused", None)
        return torch.optim.RMSprop(groups, momentum=config.momentum, **options)
    betas, is_decoupled = (config.momentum, 0.999), config.optimizer == "AdamW"
    if device.lacks("lerp.Scalar"):
        return PlainAdam(groups, lr=config.lr0, betas=betas, is_decoupled=is_decoupled)
    kind = torch.optim.AdamW if is_decoupled else torch.optim.Adam
    return kind(groups, betas=betas, **options)
