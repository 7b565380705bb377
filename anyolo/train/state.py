"""Everything a run must remember to go on bit for bit, as plain tensors, numbers and strings."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from anyolo.devices import Device

if TYPE_CHECKING:
    from anyolo.train.run import Run


def capture(run: Run) -> dict[str, Any]:
    """The ``training`` part of last.pt. Taken between two updates only."""
    return {
        "finished": False,
        "epoch": run.epoch,
        "index": run.index,
        "model": run.model.state_dict(),
        "ema_updates": run.ema.updates,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "criterion": list(_criterion_tensors(run)),
        "sums": {name: float(value) for name, value in run.sums.items()},
        "updates": run.updates,
        "pieces": run.pieces.most,
        "metrics": dict(run.metrics),
        "history": [dict(row) for row in run.history],
        "best_fitness": run.best_fitness,
        "best_epoch": run.best_epoch,
        "elapsed_s": run.elapsed_s,
        "random": capture_random(run.device),
        "args": dict(run.args),
        "choices": dict(run.choices),
    }


def restore(run: Run, state: Mapping[str, Any]) -> None:
    """Put a captured state into a freshly built run. The averaged weights are loaded by whoever built it."""
    run.epoch, run.index = state["epoch"], state["index"]
    run.model.load_state_dict(state["model"])
    run.ema.updates = state["ema_updates"]
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    if "criterion" in state:  # not in files of before there was a loss that learns
        for own, kept in zip(_criterion_tensors(run), state["criterion"], strict=True):
            own.copy_(kept)
    run.sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}
    run.updates = state["updates"]
    run.pieces.most = state.get("pieces", 0)  # not in files of before memory could run out
    run.metrics = dict(state["metrics"])
    run.history = [dict(row) for row in state["history"]]
    run.best_fitness, run.best_epoch = state["best_fitness"], state["best_epoch"]
    run.elapsed_before_s = state["elapsed_s"]
    restore_random(run.device, state["random"])


def _criterion_tensors(run: Run) -> Iterable[Tensor]:
    """What a loss learns from the batches, mostly nothing. Without names, which differ on the host."""
    return run.criterion.state_dict().values() if isinstance(run.criterion, nn.Module) else ()


def capture_random(device: Device) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys, np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "device": device.rng_state(),
    }


def restore_random(device: Device, state: Mapping[str, Any]) -> None:
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"].to(torch.uint8))
    device.set_rng_state(state["device"])
