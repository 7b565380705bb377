"""What measured batch sizes say about those that were not: a line of memory, and the choice. Numbers only."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

SPEED_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A batch size that was tried. ``peak_bytes`` is the most the process held; None: it ran out
    of memory.

    ``images_per_s`` is 0 where nothing was timed.
    """

    batch: int
    peak_bytes: int | None
    images_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """``base + slope * batch`` bytes, and ``slack`` for what lies beside the line."""

    base: float
    slope: float
    slack: float = 0.0

    def predict(self, batch: int) -> int:
        return round(self.base + self.slope * batch + self.slack)


def fit_memory(tried: Sequence[Tried], held_bytes: int) -> MemoryLine:
    """The line through the sizes that fitted; failed ones tell no number. ``held_bytes``: before all of them.

    With one size, all it took is laid to its pictures, which never promises too much. With more, the median
    of the slopes between all pairs, and of what they leave, so that a kernel which took much once for trying
    itself out does not bend the line; ``slack`` is three times the median distance from it.

    Source: Theil 1950, Sen 1968 (doi 10.1080/01621459.1968.10480934).
    """
    points = [(one.batch, one.peak_bytes) for one in tried if one.peak_bytes is not None]
    if not points:
        raise ValueError("no size fitted")
    slopes = [(b - a) / (n - m) for (m, a), (n, b) in combinations(points, 2) if n != m]
    slope = statistics.median(slopes) if slopes else 0.0
    if slope <= 0:  # one size, or noise alone: the steepest that what was held before allows
        slope = max(max(peak - held_bytes, 0) / batch for batch, peak in points)
        return MemoryLine(base=held_bytes, slope=slope)
    base = statistics.median(peak - slope * batch for batch, peak in points)
    line = MemoryLine(base=base, slope=slope)
    distances = [abs(peak - line.predict(batch)) for batch, peak in points]
    return MemoryLine(base=base, slope=slope, slack=3 * statistics.median(distances))


def largest_that_fits(need: Callable[[int], int], budget_bytes: int, limit: int) -> int:
    """The largest batch up to ``limit`` with ``need(batch)`` within the budget, 0 if there is none.

    ``need`` must not fall as the batch grows.
    """
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if need(middle) <= budget_bytes:
            low = middle
        else:
            high = middle - 1
    return low


def smallest_that_is_fast(tried: Sequence[Tried], share: float = SPEED_SHARE) -> Tried:
    """Of sizes that were timed, the smallest with ``share`` of the best rate."""
    best = max(one.images_per_s for one in tried)
    return min((one for one in tried if one.images_per_s >= share * best), key=lambda one: one.batch)


def is_levelling(tried: Sequence[Tried], gain: float = 1.03) -> bool:
    """Whether neither of the last two sizes was faster than all before them by ``gain``."""
    rates = [one.images_per_s for one in tried]
    return len(rates) > 2 and max(rates[-2:]) < gain * max(rates[:-2])
