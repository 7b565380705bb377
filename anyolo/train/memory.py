"""Going on after the device ran out of memory: the same update once more, in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from anyolo import console
from anyolo.devices import Device
from anyolo.errors import OutOfMemory
from anyolo.structures import Batch
from anyolo.train.step import StepReport

Thing = TypeVar("Thing")


class Pieces:
    """Batches cut so that at most ``most`` pictures pass the network at once; 0 leaves them whole."""

    def __init__(self, device: Device, modules: Sequence[object], *, most: int = 0, together: bool = False):
        """``modules``: the model and the criterion, whose buffers a failed attempt may have changed.

        ``together``: other processes wait in the middle of the same update, so that none can repeat it alone.
        """
        self.device, self.most, self.is_repeatable = device, most, not together
        parts = [module for module in modules if isinstance(module, nn.Module)]
        self._live = [buffer for module in parts for buffer in module.buffers()]
        self._kept = [torch.empty_like(buffer) for buffer in self._live]

    def cut(self, batches: Sequence[Batch]) -> list[Batch]:
        return [piece for batch in batches for piece in (batch.split(self.most) if self.most else [batch])]

    def run(
        self,
        step: Callable[[list[Batch]], StepReport],
        batches: Sequence[Batch],
        optimizer: torch.optim.Optimizer,
    ) -> StepReport:
        """``step`` with the batches cut; where memory runs out, again with pieces of half the size.

        Raises:
            OutOfMemory: single pictures are too many, weights were being changed, or other processes wait.
        """
        self._copy(self._live, self._kept)
        version = _version(optimizer)
        while True:
            try:
                return step(self.cut(batches))
            except Exception as error:
                if not self.device.exhausted(error):
                    raise
                reason = str(error).partition("\n")[0]
                largest = max(len(piece.images) for piece in self.cut(batches))
                is_whole = _version(optimizer) == version
                if largest == 1 or not is_whole or not self.is_repeatable:
                    many = "one picture" if largest == 1 else f"{largest} pictures at once"
                    raise OutOfMemory(
                        f"out of memory with {many}: {reason}",
                        hint=_ADVICE,
                        is_whole=is_whole,
                    ) from error
            # only here, where the failed attempt and all that its traceback holds are gone
            self._begin_anew(optimizer, largest)

    def _begin_anew(self, optimizer: torch.optim.Optimizer, largest: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        self._copy(self._kept, self._live)
        self.device.empty_cache()
        self.most = -(-largest // 2)
        console.current().warn(
            f"out of memory with {largest} pictures at once: this update again, and all later ones, with "
            f"{self.most} at once; the batch that the weights see stays what it was"
        )

    @torch.no_grad()
    def _copy(self, source: list[Tensor], target: list[Tensor]) -> None:
        if self.device.profile.foreach and source:
            torch._foreach_copy_(target, source)
            return
        for own, other in zip(target, source, strict=True):
            own.copy_(other)


_ADVICE = (
    "The run can go on from its last.pt on a device with more memory. Otherwise train with a smaller imgsz "
    "or model, or stop other programs that use this device."
)


def _version(optimizer: torch.optim.Optimizer) -> int:
    """Grows with every change of the weights."""
    return sum(int(weight._version) for group in optimizer.param_groups for weight in group["params"])


def halving(device: Device, work: Callable[[Batch], Thing], batch: Batch) -> list[Thing]:
    """What ``work`` makes of the batch; in halves where memory runs out.

    Raises:
        OutOfMemory: also with a single picture.
    """
    try:
        return [work(batch)]
    except Exception as error:
        if not device.exhausted(error):
            raise
        reason = str(error).partition("\n")[0]
        if len(batch.images) == 1:
            raise OutOfMemory(f"out of memory with one picture: {reason}", hint=_ADVICE) from error
    device.empty_cache()
    halves = batch.split(-(-len(batch.images) // 2))
    return [thing for half in halves for thing in halving(device, work, half)]
