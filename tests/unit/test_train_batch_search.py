"""The automatic batch without a network: the fit of memory, the search, and an invented device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyolo.devices import Memory
from anyolo.train.batch_fit import (
    Tried,
    fit_memory,
    is_levelling,
    largest_that_fits,
    smallest_that_is_fast,
)
from anyolo.train.batch_search import Room, search

MIB, GIB = 2**20, 2**30


def on_line(base, slope, sizes=(1, 2, 4, 8, 16)):
    return [Tried(batch=n, peak_bytes=base + slope * n) for n in sizes]


@given(st.integers(0, 10**10), st.integers(1, 10**9))
def test_what_lies_on_a_line_is_found_exactly(base, slope):
    line = fit_memory(on_line(base, slope), held_bytes=0)
    assert line.slope == pytest.approx(slope, rel=1e-6, abs=1e-3)
    assert line.predict(100) == pytest.approx(base + 100 * slope, rel=1e-6, abs=1)


@given(st.integers(0, 4), st.floats(0.2, 5), st.integers(0, 4 * 10**9), st.integers(10**7, 10**9))
def test_one_outlier_does_not_bend_the_line(place, factor, base, slope):
    tried = on_line(base, slope)
    tried[place] = Tried(batch=tried[place].batch, peak_bytes=round(tried[place].peak_bytes * factor))
    assert fit_memory(tried, held_bytes=0).slope == pytest.approx(slope, rel=0.01)


def test_failed_sizes_tell_nothing_and_noise_becomes_slack():
    tried = [*on_line(GIB, 100 * MIB), Tried(batch=32, peak_bytes=None)]
    assert fit_memory(tried, held_bytes=0) == fit_memory(tried[:-1], held_bytes=0)
    assert fit_memory(tried, held_bytes=0).slack == 0
    noisy = [
        Tried(batch=one.batch, peak_bytes=one.peak_bytes + shift * MIB)
        for one, shift in zip(tried[:-1], (0, 20, -20, 30, 0), strict=True)
    ]
    line = fit_memory(noisy, held_bytes=0)
    assert 0 < line.slack < 100 * MIB
    assert line.slope == pytest.approx(100 * MIB, rel=0.05)


def test_one_size_lays_all_it_took_to_its_pictures():
    line = fit_memory([Tried(batch=1, peak_bytes=3 * GIB)], held_bytes=GIB)
    assert line.predict(2) == 5 * GIB
    # sizes that seem to take no more than the first: never a line that falls
    flat = fit_memory([Tried(batch=n, peak_bytes=3 * GIB) for n in (1, 2, 4)], held_bytes=GIB)
    assert flat.slope == 2 * GIB
    with pytest.raises(ValueError):
        fit_memory([Tried(batch=1, peak_bytes=None)], held_bytes=0)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**9), st.integers(1, 2000))
def test_the_largest_that_fits_fits_and_the_next_does_not(slope, base, budget, limit):
    def need(batch):
        return base + slope * batch

    found = largest_that_fits(need, budget, limit)
    assert found == 0 or need(found) <= budget
    assert found == limit or need(found + 1) > budget


def test_the_smallest_within_95_percent():
    rates = {1: 50.0, 2: 90.0, 4: 98.0, 8: 100.0, 16: 99.0}
    tried = [Tried(batch=n, peak_bytes=n, images_per_s=rate) for n, rate in rates.items()]
    assert smallest_that_is_fast(tried).batch == 4
    assert smallest_that_is_fast(tried, share=0.99).batch == 8
    assert is_levelling(tried) and not is_levelling(tried[:3]) and not is_levelling(tried[:2])


class Invented:
    """A device whose step takes ``base + slope * batch`` and dies from ``dies_from`` on."""

    def __init__(self, *, base=GIB, slope=100 * MIB, rate=lambda n: 100 * n / (n + 1), dies_from=10**6):
        self.base, self.slope, self.rate, self.dies_from = base, slope, rate, dies_from
        self.measured, self.timed = [], []

    def measure(self, batch):
        self.measured.append(batch)
        if batch >= self.dies_from:
            return Tried(batch=batch, peak_bytes=None)
        return Tried(batch=batch, peak_bytes=self.base + self.slope * batch, images_per_s=self.rate(batch))

    def time(self, batch):
        self.timed.append(batch)
        return self.rate(batch)


def room(free=6 * GIB, share=0.8, held=0, beside=0):
    return Room(memory=Memory(free, 8 * GIB), held_bytes=held, share=share, beside=lambda n: beside + n * MIB)


@pytest.mark.parametrize("free", [2 * GIB, 6 * GIB, 50 * GIB])
@pytest.mark.parametrize("beside", [0, GIB // 4])
def test_a_share_is_filled_and_never_passed(free, beside):
    step, own = Invented(), room(free=free, share=0.8, beside=beside)
    choice = search(step, own, limit=1000, is_filling=True)
    assert choice.needed_bytes(choice.batch) <= own.budget_bytes < choice.needed_bytes(choice.batch + 1)
    for batch in step.measured:
        assert step.base + step.slope * batch + own.beside(batch) <= own.budget_bytes
    assert not step.timed


def test_the_smallest_fast_one_is_taken_and_all_are_timed_in_turn():
    step = Invented(rate=lambda n: 100 * n / (n + 0.2))  # 83, 91, 95, 98, 99
    choice = search(step, room(free=50 * GIB), limit=1000, is_filling=False)
    assert choice.batch == 4 and "95%" in choice.why
    sizes = step.measured
    assert step.timed[: 2 * len(sizes)] == [*reversed(sizes), *sizes]


def test_growing_ends_where_the_next_would_not_fit():
    step = Invented(slope=GIB, rate=lambda n: float(n))
    choice = search(step, room(free=8 * GIB, share=0.85), limit=1000, is_filling=False)  # 5.8 pictures
    assert step.measured == [1, 2, 4, 5] and choice.batch == 5
    assert "do not fit" in choice.why


@pytest.mark.parametrize("is_filling", [True, False])
@pytest.mark.parametrize("dies_from", [2, 3, 7, 8, 9])
def test_a_size_that_runs_out_of_memory_ends_the_growing(is_filling, dies_from):
    step = Invented(dies_from=dies_from, rate=lambda n: float(n))
    choice = search(step, room(free=50 * GIB), limit=1000, is_filling=is_filling)
    assert 1 <= choice.batch < dies_from
    assert sum(batch >= dies_from for batch in step.measured) <= (4 if is_filling else 1)
    if not is_filling:
        assert "ran out of memory" in choice.why


def test_not_even_one_picture():
    dead = search(Invented(dies_from=1), room(), limit=9, is_filling=False)
    assert dead.batch == 1 and "one picture ran out of memory" in dead.why and dead.line is None
    large = search(Invented(base=20 * GIB), room(), limit=9, is_filling=True)
    assert large.batch == 1 and "takes more than it may" in large.why


def test_no_more_pictures_than_there_are():
    step = Invented(rate=lambda n: float(n), slope=MIB)
    choice = search(step, room(), limit=5, is_filling=False)
    assert step.measured == [1, 2, 4, 5] and choice.batch == 5 and "no more than 5 pictures" in choice.why
    assert search(Invented(slope=MIB), room(), limit=5, is_filling=True).batch == 5


def test_without_time_one_size_is_enough():
    step = Invented()
    choice = search(step, room(), limit=1000, is_filling=False, most_s=0)
    assert step.measured == [1] and choice.batch == 1 and "too long" in choice.why


class Disturbed(Invented):
    """First impressions say that more is no faster; the medians say that it is, up to 16."""

    def measure(self, batch):
        one = super().measure(batch)
        return Tried(batch=batch, peak_bytes=one.peak_bytes, images_per_s=10.0)

    def time(self, batch):
        super().time(batch)
        return 10.0 * min(batch, 16)


def test_medians_that_still_rise_make_it_go_on():
    step = Disturbed()
    choice = search(step, room(free=50 * GIB), limit=1000, is_filling=False)
    assert choice.batch == 16 and max(step.measured) in {32, 64}
    assert [one.batch for one in choice.tried] == sorted(set(step.measured))


class Spiky(Invented):
    """Takes far more at 4, once, as a kernel does that is tried out."""

    def measure(self, batch):
        one = super().measure(batch)
        return Tried(batch=batch, peak_bytes=3 * one.peak_bytes, images_per_s=1.0) if batch == 4 else one


def test_a_spike_does_not_shrink_the_batch_that_fills():
    step = Spiky()
    choice = search(step, room(free=10 * GIB), limit=1000, is_filling=True)
    calm = search(Invented(), room(free=10 * GIB), limit=1000, is_filling=True)
    assert choice.batch >= 0.8 * calm.batch
    assert choice.batch <= calm.batch
