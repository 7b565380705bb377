"""Help pages, made from the settings' own annotations and the errors' own exit codes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anyolo import errors
from anyolo.cli.verbs import VERBS
from anyolo.config.settings import ALIASES, Setting, settings_of

EXAMPLES = (
    ("anyolo demo", "the whole job on drawn pictures, offline, in minutes"),
    ("anyolo train data=my/data.yaml model=yolov8n.pt epochs=50", "fine-tune"),
    ("anyolo val model=best.pt data=my/data.yaml", "measure"),
    ("anyolo predict model=best.pt source=pictures/", "find objects"),
    ("anyolo export model=best.pt format=onnx", "write for another runtime, and check it there"),
)
FLAGS = (
    ("--help", "this page; after a verb, its settings"),
    ("--version", "the version"),
    ("--json", "one JSON document on stdout, all else on stderr"),
    ("--traceback", "show where an error came from"),
)


def exit_codes() -> list[tuple[str, str]]:
    """(code, meaning), read from the docstring of ``errors``, the one place that states them."""
    sentence = " ".join((errors.__doc__ or "").partition("Exit codes:")[2].split()).rstrip(".")
    parts = (part.strip().partition(" ") for part in sentence.split(","))
    return [(code, meaning) for code, _, meaning in parts]


def print_overview() -> None:
    """``anyolo --help``."""
    page = _console()
    page.print("anyolo VERB key=value ...    or    anyolo VERB --key value ...\n", style="bold", markup=False)
    _print_pairs(page, "Verbs", [(verb, _purpose(verb)) for verb in VERBS])
    _print_pairs(page, "Flags", FLAGS)
    _print_pairs(page, "Examples", EXAMPLES)
    _print_pairs(page, "Exit codes", exit_codes())
    page.print("Settings of a verb: anyolo VERB --help", markup=False)


def print_verb(verb: str) -> None:
    """``anyolo VERB --help``: every setting with default, what is allowed and what it does, by room."""
    page = _console()
    page.print(f"anyolo {verb} key=value ...", style="bold", markup=False)
    page.print(f"{_purpose(verb)}\n", markup=False)
    settings = [places[0] for places in settings_of(VERBS[verb]).values()]
    page.print(_settings_table(settings))
    page.print("\nhyp=FILE reads settings from a YAML file; what is typed wins.", markup=False)
    keys = {setting.key for setting in settings}
    if known := [f"{alias} = {key}" for alias, key in ALIASES.items() if key in keys]:
        page.print(f"Other words: {', '.join(known)}.", markup=False)


def _settings_table(settings: list[Setting]) -> Table:
    """One table for all rooms, so that the columns stand under each other."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    table.add_column(style="dim")
    for room, group in groupby(settings, key=lambda setting: setting.room):
        table.add_row(Text(room.capitalize() or "Also", style="bold default"))
        for setting in group:
            default = "" if setting.default == "" else f"={_plain(setting.default)}"
            table.add_row(Text(f"  {setting.key}{default}"), Text(setting.help), Text(setting.allowed))
    return table


def _print_pairs(page: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    page.print(Text(title, style="bold"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    for left, right in rows:
        table.add_row(Text(f"  {left}"), Text(right))
    page.print(table)
    page.print()


def _purpose(verb: str) -> str:
    return inspect.getdoc(VERBS[verb]) or ""


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _console() -> Console:
    # piped, there is no terminal to fit into
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 120)
