"""Who makes the samples: the calling thread, or workers beside it."""

from __future__ import annotations

from typing import Protocol

from anyolo.data.samples import Sample, SampleMaker, Task


class Pending(Protocol):
    def result(self) -> Sample: ...

    def cancel(self) -> object: ...


class Workers(Protocol):
    def start(self, task: Task) -> Pending: ...

    def close(self) -> None: ...


class InCaller:
    """No workers: a sample is made when its result is asked for."""

    def __init__(self, maker: SampleMaker) -> None:
        self._maker = maker

    def start(self, task: Task) -> Pending:
        return _Later(self._maker, task)

    def close(self) -> None:
        pass


class _Later:
    def __init__(self, maker: SampleMaker, task: Task) -> None:
        self._maker, self._task = maker, task

    def result(self) -> Sample:
        return self._maker.make(self._task)

    def cancel(self) -> None:
        pass


def start_workers(count: int, maker: SampleMaker) -> Workers:
    return InCaller(maker)
