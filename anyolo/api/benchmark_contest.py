"""Who is measured, and how they take turns: each in a process of its own, one at a time, after a rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyolo import console
from anyolo.api.benchmark_child import Child, Lost
from anyolo.api.benchmark_worker import ARTIFACT, MODEL, RIVAL
from anyolo.config.schema import BenchmarkConfig
from anyolo.deploy.benchmark import KEY, WHOLE, BenchmarkRow, rate
from anyolo.errors import UnknownName
from anyolo.export import EXPORTERS

OURS = "pytorch"
ALL = "all"


@dataclass(slots=True, kw_only=True)
class Contestant:
    row: BenchmarkRow
    kind: str
    takes_any_batch: bool = False
    child: Child | None = None

    @property
    def name(self) -> str:
        return self.row.format

    def leave(self) -> None:
        if self.child is not None:
            self.child.close()
            self.child = None


def contestants(model: str, formats: Sequence[str], rival: str) -> list[Contestant]:
    """The model itself first, the rival last. Raises UnknownName for a format nobody knows."""
    named = [word for word in formats if word not in {ALL, OURS}]
    every = list(EXPORTERS) if ALL in formats else []
    try:
        chosen = dict.fromkeys([*every, *map(EXPORTERS.resolve, named)])
    except UnknownName as error:
        error.where = "formats"
        raise
    size = Path(model).stat().st_size if Path(model).is_file() else None
    found = [Contestant(row=BenchmarkRow(format=OURS, artifact=model, size_bytes=size), kind=MODEL)]
    found += [Contestant(row=BenchmarkRow(format=name), kind=ARTIFACT) for name in chosen]
    if rival:
        row = BenchmarkRow(format=Path(rival).name, is_rival=True, artifact=rival)
        found.append(Contestant(row=row, kind=RIVAL))
    return found


class Contest:
    """``job`` is what every child is started with; artefacts are written into ``folder``. ``keep`` is called
    whenever something new is known.
    """

    def __init__(
        self,
        entered: Sequence[Contestant],
        wishes: BenchmarkConfig,
        job: Mapping[str, Any],
        folder: Path,
        *,
        threads: int,
        keep: Callable[[], None],
    ) -> None:
        self.entered, self.wishes, self.job, self.folder = entered, wishes, job, folder
        self.threads, self.keep = threads, keep
        self._writer: Child | None = None
        self._told: set[str] = set()

    def run(self) -> None:
        """Fills the rows. What one cannot do stands in its row, and the others go on."""
        try:
            for one in console.track(self.entered, "writing and opening", "format"):
                with self._kept(one):
                    self._open(one)
            self._take_turns()
            for one in console.track(self.entered, "trying batches", "format"):
                for batch in self.wishes.batches:
                    if one.child is not None and batch > 1:
                        self._try_batch(one, batch)
                self.keep()
            if self.wishes.data:
                for one in console.track(self.entered, "measuring mAP", "format"):
                    self._judge(one)
        finally:
            for one in self.entered:
                one.leave()
            self._close_writer()

    def _open(self, one: Contestant) -> None:
        if one.kind == ARTIFACT:
            one.row.artifact = self._write(one, 1, self.folder)
        one.child = self._start()
        facts = self._ask(one, one.child, "open", kind=one.kind, path=one.row.artifact)
        one.takes_any_batch = facts.pop("takes_any_batch")
        for key, value in facts.items():
            setattr(one.row, key, value)

    def _take_turns(self) -> None:
        """Whoever slows the machine down for a while slows all of them; every second round is reversed."""
        rounds = self.wishes.rounds
        with console.current().progress("taking turns", rounds * len(self.entered), "turn") as bar:
            for number in range(rounds):
                for one in self.entered if number % 2 == 0 else reversed(self.entered):
                    with self._kept(one):
                        if one.child is not None:
                            one.row.add(self._turn(one, one.child, 1))
                    bar.advance()

    def _try_batch(self, one: Contestant, batch: int) -> None:
        """Pictures per second; a batch that cannot be had is a note, not the end of the row."""
        child, is_guest = one.child, not one.takes_any_batch
        try:
            if one.kind == RIVAL and is_guest:
                return
            if is_guest:
                path = self._write(one, batch, self.folder / f"batch{batch}")
                child = self._start()
                self._ask(one, child, "open", kind=one.kind, path=path)
            assert child is not None
            samples = self._turn(one, child, batch)
            one.row.images_per_s[batch] = rate([sample[WHOLE] for sample in samples], batch)
        except Lost as lost:
            one.row.notes.append(f"batch {batch}: {lost.reason}")
            if one.child is not None and not one.child.is_alive:
                one.leave()
        finally:
            if is_guest and child is not None and child is not one.child:
                child.close()

    def _judge(self, one: Contestant) -> None:
        if one.child is None:
            return
        try:
            one.row.precision = self._ask(one, one.child, "judge")["precision"]
        except Lost as lost:
            one.row.notes.append(f"{KEY}: {lost.reason}")
        one.leave()
        self.keep()

    def _turn(self, one: Contestant, child: Child, batch: int) -> list[Any]:
        time.sleep(self.wishes.rest / 1e3)
        samples: list[Any] = self._ask(one, child, "turn", passes=self.wishes.n, batch=batch)["samples"]
        return samples

    def _write(self, one: Contestant, batch: int, folder: Path) -> str:
        """By one process for all formats; another one follows where an exporter took it down."""
        if self._writer is None:
            self._writer = self._start()
        try:
            found = self._ask(one, self._writer, "export", format=one.name, batch=batch, folder=str(folder))
        except Lost:
            if not self._writer.is_alive:
                self._close_writer()
            raise
        return str(found["artifact"])

    def _start(self) -> Child:
        return Child(self.job, self.threads)

    def _ask(self, one: Contestant, child: Child, do: str, **words: Any) -> dict[str, Any]:
        """Its warnings are passed on, each once."""
        try:
            return child.ask(do, **words)
        finally:
            for text in child.heard:
                if text not in self._told:
                    console.current().warn(f"{one.name}: {text}")
            self._told.update(child.heard)
            child.heard.clear()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    @contextmanager
    def _kept(self, one: Contestant) -> Iterator[None]:
        """Whoever is lost leaves, with a reason."""
        try:
            yield
        except Lost as lost:
            one.row.reason = lost.reason + (f". {lost.hint}" if lost.hint else "")
            one.leave()
        self.keep()
