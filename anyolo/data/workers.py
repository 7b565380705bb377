"""Who makes the samples: the calling thread, threads, or processes. The samples are the same from all three.

See docs/adr/0002-loader.md for the measurements behind the choice.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import cv2

from anyolo import console
from anyolo.data.processes import Processes
from anyolo.data.samples import Sample, SampleMaker, Task
from anyolo.ops.image import Pixels

_MOST_THREADS = 2
"""Above this the interpreter lock costs more than processes do, also beside a step that seldom needs it."""


class Pending(Protocol):
    def result(self) -> Sample: ...

    def cancel(self) -> object: ...


class Workers(Protocol):
    def start(self, task: Task, out: Pixels) -> Pending:
        """Have the sample made; its picture is in ``out`` once ``result()`` returned."""

    def close(self) -> None: ...


class InCaller:
    """No workers: a sample is made when its result is asked for."""

    def __init__(self, maker: SampleMaker) -> None:
        self._maker = maker

    def start(self, task: Task, out: Pixels) -> Pending:
        return _Later(self._maker, task, out)

    def close(self) -> None:
        pass


class _Later:
    def __init__(self, maker: SampleMaker, task: Task, out: Pixels) -> None:
        self._maker, self._task, self._out = maker, task, out

    def result(self) -> Sample:
        return self._maker.make(self._task, self._out)

    def cancel(self) -> None:
        pass


class Threads:
    """OpenCV and most of numpy run beside the interpreter; nothing is copied, pickled or started."""

    _open = 0
    _cv2_threads = 0

    def __init__(self, maker: SampleMaker, count: int) -> None:
        self._maker = maker
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="anyolo-loader")
        self._is_open = True
        if Threads._open == 0:
            Threads._cv2_threads = cv2.getNumThreads()
            cv2.setNumThreads(0)  # the pictures are the parallelism
        Threads._open += 1

    def start(self, task: Task, out: Pixels) -> Future[Sample]:
        return self._pool.submit(self._maker.make, task, out)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        Threads._open -= self._is_open
        if self._is_open and Threads._open == 0:
            cv2.setNumThreads(Threads._cv2_threads)
        self._is_open = False


def start_workers(wanted: int, maker: SampleMaker, *, in_flight: int, apart: bool = False) -> Workers:
    """At most ``wanted`` and one per processor. ``in_flight``: samples started and not yet collected.

    ``apart`` asks for processes: an accelerator's step is a stream of short calls, and threads would stand in
    the way of each of them.
    """
    count, are_processes = plan_workers(wanted, apart=apart)
    if count < wanted and maker.augment is not None:  # once a run, not again for its evaluation
        console.current().line(f"{count} loader workers instead of {wanted}: one for each processor")
    if count == 0:
        return InCaller(maker)
    return Processes(maker, count, in_flight=in_flight) if are_processes else Threads(maker, count)


def plan_workers(wanted: int, *, apart: bool) -> tuple[int, bool]:
    """How many there will be, and whether they are processes."""
    count = min(wanted, processors())
    can_start = bool(sys.executable) and not getattr(sys, "frozen", False)
    return count, can_start and count > 0 and (apart or count > _MOST_THREADS)


def processors() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
