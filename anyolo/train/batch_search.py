"""The search for a batch size: growing steps as long as the next is sure to fit, then the choice."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from anyolo.devices import Memory
from anyolo.train.batch_fit import (
    SPEED_SHARE,
    MemoryLine,
    Tried,
    fit_memory,
    is_levelling,
    largest_that_fits,
    smallest_that_is_fast,
)

ROUNDS = 5
MOST_S = 60.0
SMALLEST_GROWTH = 1.25
LEVELLING, ALL = "larger ones are no faster", "a batch holds no more than {} pictures here"


class Step(Protocol):
    """What the search needs of a trial."""

    def measure(self, batch: int) -> Tried: ...

    def time(self, batch: int) -> float:
        """Images per second, 0 where the memory did not suffice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What there is. ``held_bytes`` is ours before the first step, ``share`` of what is free or ours may be
    taken, and ``beside(batch)`` of that is for loaders and whatever else no step shows.
    """

    memory: Memory
    held_bytes: int
    share: float
    beside: Callable[[int], int]

    @property
    def budget_bytes(self) -> int:
        return int(self.share * (self.memory.free_bytes + self.held_bytes))

    def holds(self, one: Tried) -> bool:
        return one.peak_bytes is not None and one.peak_bytes + self.beside(one.batch) <= self.budget_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A batch size, why, and all that was tried for it, by size. ``line`` is None where nothing fitted."""

    batch: int
    why: str
    room: Room
    tried: Sequence[Tried]
    line: MemoryLine | None

    def needed_bytes(self, batch: int) -> int:
        return (self.line.predict(batch) if self.line else self.room.held_bytes) + self.room.beside(batch)


def search(step: Step, room: Room, *, limit: int, is_filling: bool, most_s: float = MOST_S) -> Choice:
    """Grow, fit, choose. Beyond one picture no size is tried that the fit says is too large.

    ``is_filling``: the largest batch that the room holds, else the smallest as fast as any; up to ``limit``.
    The search starts nothing that it expects to end later than after ``most_s`` seconds.
    """
    begun_s = time.perf_counter()
    until_s = begun_s + most_s
    tried: list[Tried] = []
    ending = _grow(step, room, tried, limit, is_filling, until_s)
    if tried[0].peak_bytes is None:
        batch, why = 1, "the smallest there is, although even one picture ran out of memory"
    elif _largest(room, tried, limit) == 0:
        batch, why = 1, "the smallest there is, although it takes more than it may"
    elif is_filling:
        batch = _fill(step, room, tried, limit, until_s)
        why = "the largest that fits" if batch < limit else ALL.format(limit)
    else:
        batch, why = _find_fastest(step, room, tried, until_s)
        # it levelled by first impressions only: go on where the medians say otherwise
        while ending == LEVELLING and not is_levelling(tried) and time.perf_counter() < begun_s + most_s / 2:
            ending = _grow(step, room, tried, limit, is_filling, until_s)
            batch, why = _find_fastest(step, room, tried, until_s)
        why = f"{why}; {ending}"
    line = fit_memory(tried, room.held_bytes) if tried[0].peak_bytes is not None else None
    ordered = sorted(tried, key=lambda one: one.batch)
    return Choice(batch=batch, why=why, room=room, tried=ordered, line=line)


def _grow(step: Step, room: Room, tried: list[Tried], limit: int, is_filling: bool, until_s: float) -> str:
    """1, 2, 4, ... and at last the largest that fits, added to ``tried``; and what ended it, in words."""
    spent_s = 0.0
    while True:
        batch, began = 1, time.perf_counter()
        if tried:
            most, last = _largest(room, tried, limit), tried[-1].batch
            batch = min(2 * last, most)
            if batch < SMALLEST_GROWTH * last:
                return (
                    f"there are no more than {limit} pictures" if most == limit else "larger ones do not fit"
                )
            if began + 2 * spent_s > until_s:
                return f"larger ones than {last} would take too long to try"
        tried.append(step.measure(batch))
        spent_s = time.perf_counter() - began
        if tried[-1].peak_bytes is None:
            return f"{batch} ran out of memory"
        if not is_filling and is_levelling(tried):
            return LEVELLING


def _largest(room: Room, tried: Sequence[Tried], limit: int) -> int:
    """What the room holds by all that is known, below every size that failed."""
    line = fit_memory(tried, room.held_bytes)
    failed = min((one.batch for one in tried if one.peak_bytes is None), default=limit + 1)
    return largest_that_fits(
        lambda batch: line.predict(batch) + room.beside(batch), room.budget_bytes, min(limit, failed - 1)
    )


def _fill(step: Step, room: Room, tried: list[Tried], limit: int, until_s: float) -> int:
    """The largest by the fit, which is tried too, and mended where it was wrong there."""
    for _ in range(3):
        batch = _largest(room, tried, limit)
        failed = [one.batch for one in tried if one.peak_bytes is None]
        if failed:  # the fit was wrong there: half-way to what went well
            well = max(one.batch for one in tried if one.peak_bytes is not None)
            batch = min(batch, (well + min(failed)) // 2)
        known = [one for one in tried if one.batch == batch]
        if batch > 1 and not known and time.perf_counter() < until_s:
            tried.append(step.measure(batch))
            known = tried[-1:]
        if all(room.holds(one) for one in known):
            return max(1, batch)
    return max((one.batch for one in tried if room.holds(one)), default=1)


def _find_fastest(step: Step, room: Room, tried: list[Tried], until_s: float) -> tuple[int, str]:
    """Times all sizes in turn, up and down, so that a machine that slows down meanwhile slows them all."""
    line = fit_memory(tried, room.held_bytes)
    sizes = [one.batch for one in tried if room.holds(one) and room.holds(_expected(line, one.batch))] or [1]
    rates: dict[int, list[float]] = {one.batch: [] for one in tried}
    spent_s = 0.0
    for number in range(ROUNDS):
        began = time.perf_counter()
        if began + spent_s > until_s:
            break
        for batch in sizes if number % 2 else reversed(sizes):
            rates[batch].append(step.time(batch))
        sizes = [batch for batch in sizes if all(rates[batch])] or [1]
        spent_s = time.perf_counter() - began
    tried[:] = [
        replace(one, images_per_s=statistics.median(rates[one.batch] or [one.images_per_s])) for one in tried
    ]
    candidates = [one for one in tried if one.batch in sizes]
    best = max(candidates, key=lambda one: one.images_per_s)
    chosen = smallest_that_is_fast(candidates)
    if chosen is best:
        why = f"the fastest, {best.images_per_s:.3g} images/s"
    else:
        why = (
            f"the smallest with {SPEED_SHARE:.0%} of the best rate ({chosen.images_per_s:.3g} images/s, "
            f"{best.images_per_s:.3g} with {best.batch})"
        )
    return chosen.batch, why


def _expected(line: MemoryLine, batch: int) -> Tried:
    return Tried(batch=batch, peak_bytes=line.predict(batch))
