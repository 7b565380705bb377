"""The processes of one run, one per device: who each is, and what all of them agree on.

torchrun starts them and says in their environment who is who. A run of one process has a ``Group`` too: its
verbs then do nothing, so that nobody asks whether there are others.

Losses divide by counts of a whole batch, of which each process sees a share. Inside ``together`` they get
the counts of all; outside, as in evaluation and in exported graphs, their own.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from anyolo import console
from anyolo.devices.base import Device
from anyolo.errors import DeviceError

if TYPE_CHECKING:  # some builds of torch have none
    from torch.distributed.distributed_c10d import Store

Thing = TypeVar("Thing")

# Long, because the first process may read and check a large data set while the others wait. That one died
# is noticed at once: its connections close, and torchrun ends the rest.
PATIENCE = timedelta(hours=1)
_COUNTED: ContextVar[Group | None] = ContextVar("anyolo_counted", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """``rank`` of ``world`` processes, on this machine the one of number ``local_rank``."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.world == 1

    def own(self, things: Any) -> Any:
        """This process's share of a sequence: every ``world``-th."""
        return things[self.rank :: self.world]

    def first(self, make: Callable[[], Thing]) -> Thing:
        """What the first process makes; the others wait for it."""
        if self.is_alone:
            return make()
        box: list[Any] = [make() if self.is_first else None]
        dist.broadcast_object_list(box, src=0)
        found: Thing = box[0]
        return found

    def gather(self, thing: Thing) -> list[Thing]:
        """Everybody's, in the order of the ranks, to everybody."""
        if self.is_alone:
            return [thing]
        box: list[Any] = [None] * self.world
        dist.all_gather_object(box, thing)
        return box

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes; a new tensor, without a gradient."""
        total = values.detach().clone()
        if not self.is_alone:
            dist.all_reduce(total)
        return total

    def any(self, is_so: bool) -> bool:
        """Whether it is so for one of them."""
        return is_so if self.is_alone else bool(self.sum(torch.tensor(float(is_so))) > 0)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors by those of the first process."""
        for tensor in tensors if not self.is_alone else ():
            dist.broadcast(tensor, src=0)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process does the block before the others, who then find what it left behind."""
        if not self.is_first:
            dist.barrier()
        try:
            yield
        finally:
            if self.is_first and not self.is_alone:
                dist.barrier()

    def spread(self, model: nn.Module, device: Device, *, sync_bn: bool) -> nn.Module:
        """What is to be called in training instead of ``model``: it averages the gradients of all.

        Weights and buffers become those of the first process. ``sync_bn``: batch norms that see the whole
        batch, where the backend has them.
        """
        if self.is_alone:
            return model
        if sync_bn and device.profile.sync_bn:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        numbers = None if device.torch_device.type == "cpu" else [device.torch_device.index]
        return nn.parallel.DistributedDataParallel(model, device_ids=numbers, gradient_as_bucket_view=True)

    def leave(self) -> None:
        """Not a barrier: who ends in an error leaves too.

        The communication's threads end with the last that holds the group; one still at work when the
        interpreter ends would abort the process.
        """
        if not self.is_alone and dist.is_initialized():
            dist.destroy_process_group()
            gc.collect()


def placed() -> Group:
    """Who this process is, by the environment that torchrun makes."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Group()
    return Group(rank=int(os.environ["RANK"]), world=world, local_rank=int(os.environ["LOCAL_RANK"]))


def join(device: Device) -> Group:
    """Meet the others. Raises DeviceError for a backend whose devices cannot talk to each other."""
    group, profile = placed(), device.profile
    if group.is_alone:
        return group
    if not profile.dist_backend or not dist.is_available():
        raise DeviceError(
            f"several {profile.name} devices cannot train together: torch has no communication for them",
            where="device",
            hint="Train on one of them.",
        )
    if not dist.is_initialized():
        # imported later, by what wraps a model, it holds the group in default arguments to the very end
        import torch.distributed.nn  # noqa: F401
        from torch.distributed.rendezvous import rendezvous

        kind = device.torch_device.type
        # what is agreed on lies on the host, gradients on the device
        backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{profile.dist_backend}"
        store, rank, world = next(iter(rendezvous("env://", timeout=PATIENCE)))
        dist.init_process_group(
            backend, store=_own_store(store, group), rank=rank, world_size=world, timeout=PATIENCE
        )
    return group


def _own_store(store: Store, group: Group) -> Store:
    """Where the processes of this start meet.

    torchrun's own store outlives a failure, and in it those that are started again would find the addresses
    of the dead and wait for them (github.com/pytorch/pytorch/issues/135712; so in torch 2.13).
    """
    environ = os.environ
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store
    if environ.get("GROUP_WORLD_SIZE", "1") == "1":
        from torch.distributed.distributed_c10d import PrefixStore

        return PrefixStore(f"start-{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    # each machine counts its own failures, so the number is not common to all
    if group.is_first and environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        console.current().warn(
            "over several machines torchrun will not manage to start this run again: "
            "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where it is started"
        )
    return store


@contextmanager
def together(group: Group) -> Iterator[None]:
    """Inside, ``shared_counts`` counts over all processes of ``group``."""
    token = _COUNTED.set(None if group.is_alone else group)
    try:
        yield
    finally:
        _COUNTED.reset(token)


def shared_counts(*counts: Tensor | int) -> tuple[Tensor | int, ...]:
    """Each count as the mean over the processes, in one exchange; as they are where there are no others.

    A loss that divides by such a mean, its gradients then averaged over the processes, is the loss of the
    whole batch.
    """
    group = _COUNTED.get()
    if group is None:
        return counts
    device = next(count.device for count in counts if isinstance(count, Tensor))
    own = [torch.as_tensor(count, dtype=torch.float32, device=device) for count in counts]
    return tuple((group.sum(torch.stack(own)) / group.world).unbind())


def at_least_one(mean_count: Tensor | int) -> Tensor:
    """``clamp(min=1)`` of the count of the whole batch, for a count of ``shared_counts``."""
    group = _COUNTED.get()
    assert isinstance(mean_count, Tensor)
    return mean_count.clamp(min=1 if group is None else 1 / group.world)


def without_exchange(model: nn.Module) -> Any:
    """Gradients inside are kept, to be averaged with those of a later micro-batch."""
    return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()
