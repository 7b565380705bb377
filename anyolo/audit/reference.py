"""What the CPU makes of a network: the truth in float64, and its own errors in the shorter types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch

from anyolo.audit.host import Host, one_thread
from anyolo.audit.listening import listening
from anyolo.audit.network_runs import Judged, Seen, Stepped, Way, decode, judge, look, step, training_maps
from anyolo.families.base import FamilySpec
from anyolo.nn.model import Detector
from anyolo.structures import Batch, HeadOutput, Predictions, Preprocess

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is compared: a model (float32, evaluating, on the CPU), its family and a batch on the host."""

    model: Detector
    spec: FamilySpec
    preprocess: Preprocess
    batch: Batch


class Reference:
    """Everything is computed when first asked for, and once. ``has_one_thread``: in one thread, for a device
    that is the same processor.
    """

    def __init__(self, subject: Subject, *, has_one_thread: bool = False) -> None:
        self.subject, self.has_one_thread = subject, has_one_thread
        self.host = Host()
        self._sights: dict[torch.dtype, Seen | None] = {}
        self._steps: dict[torch.dtype, Stepped | None] = {}

    @cached_property
    def true_sight(self) -> Seen:
        s = self.subject
        return look(s.model, s.preprocess, s.batch.images, Way(self.host, torch.float64))

    @cached_property
    def true_step(self) -> Stepped:
        s = self.subject
        return step(s.model, s.spec, s.preprocess, s.batch, Way(self.host, torch.float64))

    def sight(self, dtypes: Sequence[torch.dtype]) -> Seen | None:
        """In the first of these types that this torch has kernels for."""
        s = self.subject
        return self._first(self._sights, dtypes, lambda way: look(s.model, s.preprocess, s.batch.images, way))

    def step(self, dtypes: Sequence[torch.dtype]) -> Stepped | None:
        """In the first of these types that this torch has kernels for."""
        s = self.subject
        return self._first(self._steps, dtypes, lambda way: step(s.model, s.spec, s.preprocess, s.batch, way))

    @cached_property
    def decoded(self) -> Predictions:
        """Of the true maps, in float32."""
        levels = tuple(x.float() for x in self.true_sight.levels)
        return decode(self.subject.model, levels, self.host)

    @cached_property
    def maps(self) -> HeadOutput:
        """What the loss sees in training, in float32."""
        s = self.subject
        return training_maps(s.model, s.preprocess, s.batch.images, self.host)

    @cached_property
    def judged(self) -> Judged:
        """The loss of ``maps``."""
        s = self.subject
        return judge(s.model, s.spec, self.maps, s.batch.targets, self.host)

    def _first(
        self, known: dict[torch.dtype, T | None], dtypes: Sequence[torch.dtype], run: Callable[[Way], T]
    ) -> T | None:
        for dtype in dtypes:
            if dtype not in known:
                with one_thread(self.has_one_thread), listening():
                    try:
                        known[dtype] = run(Way(self.host, dtype))
                    except RuntimeError:  # this torch has no such kernel for the CPU
                        known[dtype] = None
            if known[dtype] is not None:
                return known[dtype]
        return None
