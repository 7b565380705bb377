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


def resolve_optimizer(
    config: OptimConfig, explicit: Iterable[str], *, images: int, batch: int, epochs: int, nc: int
) -> tuple[OptimConfig, str]:
    """Turn ``optimizer=auto`` into a choice, and say it in one line.

    Where the family's recipe or the user names one, that is it. Else short runs get AdamW with a rate that
    falls with the class count, long ones SGD. A learning rate, momentum or warm-up that the user typed is
    kept, whatever was chosen.

    Source: the field's rule (Ultralytics 8.4), with SGD in place of MuSGD.
    """
    if config.optimizer != "auto":
        why = "as asked for" if "optimizer" in set(explicit) else "the family's recipe"
        return (
            config,
            f"optimizer {config.optimizer} (lr0={config.lr0:g}, momentum={config.momentum:g}), {why}",
        )
    updates = math.ceil(images / max(batch, config.nbs)) * epochs
    if updates > LONG_RUN_UPDATES:
        chosen: dict[str, Any] = {"optimizer": "SGD", "lr0": 0.01, "momentum": 0.9}
    else:
        chosen = {"optimizer": "AdamW", "lr0": round(0.002 * 5 / (4 + nc), 6), "momentum": 0.9}
    chosen["warmup_bias_lr"] = 0.0
    kept = [name for name in ("lr0", "momentum", "warmup_bias_lr") if name in set(explicit)]
    for name in kept:
        del chosen[name]
    resolved = dataclasses.replace(config, **chosen)
    note = (
        f"optimizer=auto chose {resolved.optimizer} (lr0={resolved.lr0:g}, momentum={resolved.momentum:g}) "
        f"for about {updates} updates"
    )
    return resolved, note + (f"; kept your {', '.join(kept)}" if kept else "")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Three groups: ``weights`` decay; ``norms`` (scales of normalisation layers, and what belongs to a module
    that says ``decays = False``) and ``biases`` do not.
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
    groups = parameter_groups(model, config.weight_decay * batch * accumulate / config.nbs)
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
