"""What the processes send each other in place of whole float32 gradients, and how many bytes that is.

The hooks of torch.nn.parallel.DistributedDataParallel get the gradients bucket by bucket. Which one a run
uses is ``comm_hook``; all of them count the bytes that this process hands over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

RANK, WHOLE_UPDATES = 2, 10
"""Of PowerSGD: columns of a gradient's factors, and updates after the warm-up that are still whole."""
KEPT_SHARE = 0.01
"""Of the gradients of a bucket, by ``topk``, after the warm-up."""
WARM_SHARES = (1 / 4, 1 / 16, 1 / 64)
"""In the first, second and last third of the warm-up."""

Future = torch.futures.Future[Tensor]
Hook = Callable[[Any, GradBucket], Future]
Warmth = Callable[[], float]
"""From 0 at the first update to 1 once the learning rate's warm-up is over."""


@dataclass(slots=True)
class Traffic:
    """Bytes of gradients that this process handed over, and the updates they were for."""

    sent_bytes: int = 0
    updates: int = 0

    def take(self) -> float:
        """Bytes per update since the last time; counting starts anew."""
        mean = self.sent_bytes / max(self.updates, 1)
        self.sent_bytes = self.updates = 0
        return mean


@dataclass(slots=True)
class _Largest:
    """State of ``topk``: what was not sent yet, by bucket."""

    traffic: Traffic
    warmth: Warmth
    kept_back: dict[int, Tensor] = field(default_factory=dict)


def compress(forward: nn.Module, name: str, warmth: Warmth) -> Traffic:
    """Have the gradients of a model spread over processes sent as ``comm_hook`` says.

    What a hook keeps back for later updates is no part of a checkpoint: a resumed run starts it anew.
    """
    assert isinstance(forward, nn.parallel.DistributedDataParallel)
    traffic = Traffic()
    state, hook = HOOKS[name](traffic, warmth)
    forward.register_comm_hook(state, hook)
    return traffic


def _as_they_are(traffic: Traffic, warmth: Warmth) -> tuple[Any, Hook]:
    return dist.group.WORLD, _counted(default_hooks.allreduce_hook, traffic, bytes_each=4)


def _in_float16(traffic: Traffic, warmth: Warmth) -> tuple[Any, Hook]:
    return dist.group.WORLD, _counted(default_hooks.fp16_compress_hook, traffic, bytes_each=2)


def _in_bfloat16(traffic: Traffic, warmth: Warmth) -> tuple[Any, Hook]:
    return dist.group.WORLD, _counted(default_hooks.bf16_compress_hook, traffic, bytes_each=2)


def _counted(hook: Hook, traffic: Traffic, *, bytes_each: int) -> Hook:
    def counting(state: Any, bucket: GradBucket) -> Future:
        traffic.sent_bytes += bucket.buffer().numel() * bytes_each
        traffic.updates += bucket.is_last()
        return hook(state, bucket)

    return counting


def _in_low_rank(traffic: Traffic, warmth: Warmth) -> tuple[Any, Hook]:
    """Whole in the warm-up and some updates longer, as torch advises.

    Source: Vogels et al. 2019, arXiv:1905.13727, algorithm 1, as torch has it.
    """
    state = powerSGD_hook.PowerSGDState(
        dist.group.WORLD, matrix_approximation_rank=RANK, start_powerSGD_iter=WHOLE_UPDATES
    )
    _, whole = _as_they_are(traffic, warmth)

    def counting(state: Any, bucket: GradBucket) -> Future:
        if warmth() < 1:
            return whole(dist.group.WORLD, bucket)
        is_whole = state.iter < WHOLE_UPDATES
        before = state.total_numel_after_compression
        future: Future = powerSGD_hook.powerSGD_hook(state, bucket)
        numbers = bucket.buffer().numel() if is_whole else state.total_numel_after_compression - before
        traffic.sent_bytes += 4 * numbers
        traffic.updates += bucket.is_last()
        return future

    return state, counting


def _the_largest(traffic: Traffic, warmth: Warmth) -> tuple[Any, Hook]:
    return _Largest(traffic, warmth), _send_largest


def _share(warmth: float) -> float:
    """Of the gradients that are sent; ``warmth`` 1 or more: the warm-up is over."""
    stage = int(warmth * len(WARM_SHARES))
    return WARM_SHARES[stage] if stage < len(WARM_SHARES) else KEPT_SHARE


def _send_largest(state: _Largest, bucket: GradBucket) -> Future:
    """Only the largest numbers, with their places; the others wait until they have added up.

    Source: Lin et al. 2018, arXiv:1712.01887, sections 3.1 and 3.3 (warm-up), without momentum correction;
    Stich et al. 2018, arXiv:1809.07599, algorithm 1 (memory).
    """
    gradient, index, world = bucket.buffer(), bucket.index(), dist.get_world_size()
    kept_back = state.kept_back.get(index)
    # torch makes other buckets after the first update, in the order in which gradients came
    whole = gradient + kept_back if kept_back is not None and kept_back.shape == gradient.shape else gradient
    places = whole.abs().topk(max(1, int(_share(state.warmth()) * len(whole)))).indices
    numbers = whole.gather(0, places)
    state.kept_back[index] = whole.scatter(0, places, 0.0)
    state.traffic.sent_bytes += places.numel() * (4 + numbers.element_size())
    state.traffic.updates += bucket.is_last()
    sent_places = places.to(torch.int32)
    others_places = [torch.empty_like(sent_places) for _ in range(world)]
    others_numbers = [torch.empty_like(numbers) for _ in range(world)]
    dist.all_gather(others_places, sent_places)
    dist.all_gather(others_numbers, numbers)
    total = torch.zeros_like(gradient)
    for sent, own_numbers in zip(others_places, others_numbers, strict=True):
        # one process after the other, each place once: the sum has the same order everywhere
        own_places = sent.long()
        total.scatter_(0, own_places, total.gather(0, own_places) + own_numbers)
    done: Future = torch.futures.Future()
    done.set_result(total / world)
    return done


HOOKS: dict[str, Callable[[Traffic, Warmth], tuple[Any, Hook]]] = {
    "none": _as_they_are,
    "fp16": _in_float16,
    "bf16": _in_bfloat16,
    "powersgd": _in_low_rank,
    "topk": _the_largest,
}
