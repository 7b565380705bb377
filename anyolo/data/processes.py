"""Loader workers as child processes.

They are started as ``python -c``, not by multiprocessing: nothing is forked from a process with threads, the
user's script is not imported again (no ``__main__`` guard), and they import neither torch nor the rest of the
house (0.3 s and 60 MB each). Pictures come back through shared memory, the rest through pipes. A child ends
when its pipe does, so none outlives a killed parent.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from anyolo.data.samples import Sample, SampleMaker, Task
from anyolo.data.shared_bytes import SharedBytes
from anyolo.errors import AnyoloError
from anyolo.ops.image import Pixels

_CHILD = "import sys; sys.path[:] = {path!r}; from anyolo.data.processes import serve; serve()"
_QUEUED = 2
"""Samples a worker has at hand: one in work, one so that it need not wait for the next."""


@dataclass(slots=True)
class _Job:
    task: Task
    out: Pixels
    future: Future[Sample]
    slot: int = -1


class _Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.jobs: deque[_Job] = deque()


class Processes:
    """``count`` children; ``in_flight`` slots of shared memory, each for the largest picture."""

    def __init__(self, maker: SampleMaker, count: int, *, in_flight: int) -> None:
        self._slot_bytes = max(3 * h * w for h, w in maker.sizes_hw)
        self._memory = SharedBytes(self._slot_bytes * in_flight)
        self._free = list(range(in_flight))
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._failure: AnyoloError | None = None
        shelf = maker.store.shelf
        shared = [self._memory, *([shelf.memory] if shelf and isinstance(shelf.memory, SharedBytes) else [])]
        inherited = tuple(number for memory in shared for number in memory.inherited())
        self._greeting = pickle.dumps((maker, self._memory, self._slot_bytes), protocol=5)
        self._children = [_Child(_spawn(inherited)) for _ in range(count)]
        self._ready: list[_Child] = []
        self._readers = [
            threading.Thread(target=self._listen, args=(c,), daemon=True) for c in self._children
        ]
        for reader in self._readers:
            reader.start()

    def start(self, task: Task, out: Pixels) -> Future[Sample]:
        job = _Job(task, out, Future())
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._waiting.append(job)
            self._hand_out()
        return job.future

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._waiting.clear()
        for child in self._children:
            _close(child.process.stdin)
        for child, reader in zip(self._children, self._readers, strict=True):
            try:
                child.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            reader.join()
            _close(child.process.stdout)

    def _hand_out(self) -> None:
        """Give waiting jobs to the children that have least to do. Called with the lock held."""
        while self._waiting and self._free:
            child = min(self._ready, key=lambda c: len(c.jobs), default=None)
            if child is None or len(child.jobs) >= _QUEUED:
                return
            job = self._waiting.popleft()
            if not job.future.set_running_or_notify_cancel():
                continue
            job.slot = self._free.pop()
            child.jobs.append(job)
            try:
                _send(child.process.stdin, pickle.dumps((job.task, job.slot, job.out.shape), protocol=5))
            except OSError:
                return  # it died; its reader says so

    def _listen(self, child: _Child) -> None:
        """Greet a child, then take its answers, in the order of its jobs, until its pipe ends."""
        try:
            _send(child.process.stdin, self._greeting)
            with self._lock:
                self._ready.append(child)
                self._hand_out()
            self._take_answers(child)
        except (OSError, ValueError, EOFError):
            self._mourn(child)

    def _take_answers(self, child: _Child) -> None:
        while True:
            answer = _receive(child.process.stdout)
            job = child.jobs[0]
            sample: Sample | str = pickle.loads(answer)
            if isinstance(sample, Sample):
                start = job.slot * self._slot_bytes
                job.out[:] = self._memory.array[start : start + job.out.size].reshape(job.out.shape)
                job.future.set_result(sample)
            else:
                job.future.set_exception(RuntimeError(f"a loader worker failed:\n{sample}"))
            with self._lock:
                child.jobs.popleft()
                self._free.append(job.slot)
                self._hand_out()

    def _mourn(self, child: _Child) -> None:
        code = child.process.wait()
        with self._lock:
            if self._closed:
                return
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            self._failure = AnyoloError(
                f"a loader worker died ({how})",
                where=f"process {child.process.pid}",
                hint="Often the system ran out of memory: use fewer workers= or a smaller batch=.",
            )
            lost = [job for other in self._children for job in other.jobs] + list(self._waiting)
            self._waiting.clear()
        for job in lost:
            if not job.future.done() and not job.future.cancelled():
                job.future.set_exception(self._failure)


def serve() -> None:
    """A child's life: make what is asked for until the pipe ends."""
    import signal
    import traceback

    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the same where there are no sessions
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else writes to stdout must not get between the answers
    cv2.setNumThreads(0)
    try:
        maker, memory, slot_bytes = pickle.loads(_receive(requests))
        while True:
            task, slot, shape = pickle.loads(_receive(requests))
            size = shape[0] * shape[1] * shape[2]
            out = memory.array[slot * slot_bytes : slot * slot_bytes + size].reshape(shape)
            answer: Any
            try:
                answer = maker.make(task, out)
            except Exception:
                answer = traceback.format_exc()
            _send(answers, pickle.dumps(answer, protocol=5))
    except (EOFError, OSError):
        return


def _spawn(inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        pass_fds=inherited,
        start_new_session=True,  # Ctrl-C in the terminal is the parent's business
    )


def _send(pipe: BinaryIO | Any, message: bytes) -> None:
    pipe.write(len(message).to_bytes(8, "little"))
    pipe.write(message)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> bytes:
    """EOFError when the other side is gone."""
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    size = int.from_bytes(head, "little")
    message: bytes = pipe.read(size)
    if len(message) < size:
        raise EOFError
    return message


def _close(pipe: BinaryIO | Any) -> None:
    with suppress(OSError):
        pipe.close()
