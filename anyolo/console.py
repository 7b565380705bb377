"""The only room that prints. Everybody else talks to a ``Reporter``.

``current()`` is silent unless somebody asked for words: the command line and the Python API set a reporter
with ``use``. ``--json`` sends all of it to stderr, so that stdout carries exactly one document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TextIO, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """A running bar: ``advance`` counts, ``describe`` changes the words beside it."""

    def advance(self, count: float = 1) -> None: ...

    def describe(self, text: str) -> None: ...


class Reporter(Protocol):
    def line(self, text: str) -> None:
        """One line of information."""

    def warn(self, text: str) -> None:
        """Something the user should know; the job goes on."""

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None: ...

    def progress(self, text: str, total: float | None, unit: str = "it") -> Any:
        """A context manager giving a ``Progress``, with rate and time left."""


class NullReporter:
    """Says nothing. The default, so that a library call never writes to somebody's terminal."""

    def line(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        pass

    @contextmanager
    def progress(self, text: str, total: float | None, unit: str = "it") -> Iterator[Progress]:
        yield _NullProgress()


class _NullProgress:
    def advance(self, count: float = 1) -> None:
        pass

    def describe(self, text: str) -> None:
        pass


class RichReporter:
    """Lines, tables and bars for people, by rich."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console

        self.console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", style="yellow", markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", header_style="bold")
        cells = [[_cell(value) for value in row] for row in rows]
        for number, column in enumerate(columns):
            has_figures = number > 0 and all(_is_figure(row[number]) for row in cells)
            table.add_column(column, justify="right" if has_figures else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table)

    @contextmanager
    def progress(self, text: str, total: float | None, unit: str = "it") -> Iterator[Progress]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        with Bars(*columns, console=self.console, transient=False) as bars:
            task = bars.add_task(text, total=total, rate="")
            yield _RichProgress(bars, task, unit)


class _RichProgress:
    def __init__(self, bars: Any, task: Any, unit: str) -> None:
        self.bars, self.task, self.unit = bars, task, unit

    def advance(self, count: float = 1) -> None:
        self.bars.update(self.task, advance=count)
        own = next(t for t in self.bars.tasks if t.id == self.task)
        if own.elapsed:
            self.bars.update(self.task, rate=f"{own.completed / own.elapsed:.1f} {self.unit}/s")

    def describe(self, text: str) -> None:
        self.bars.update(self.task, description=text)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_figure(cell: str) -> bool:
    return cell == "nan" or not any(character.isalpha() for character in cell)


_CURRENT: ContextVar[Reporter] = ContextVar("anyolo_reporter", default=NullReporter())  # noqa: B039 (stateless)


def current() -> Reporter:
    return _CURRENT.get()


@contextmanager
def use(reporter: Reporter) -> Iterator[Reporter]:
    """Everything inside the block reports to ``reporter``."""
    token = _CURRENT.set(reporter)
    try:
        yield reporter
    finally:
        _CURRENT.reset(token)


def track(items: Sequence[Item], text: str, unit: str = "it") -> Iterator[Item]:
    """Iterate with a progress bar of the current reporter."""
    with current().progress(text, len(items), unit) as bar:
        for item in items:
            yield item
            bar.advance()


def print_document(document: Any) -> None:
    """The one JSON document of ``--json``, on stdout."""
    print(json.dumps(document, ensure_ascii=False), file=sys.stdout, flush=True)


def print_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
