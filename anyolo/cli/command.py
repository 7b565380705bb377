"""``main``: read the words, run the verb, turn every ending into words and an exit code."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from anyolo import __version__, console
from anyolo.errors import AnyoloError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` if not given); returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    _accept_any_character(as_json="--json" in words)
    try:
        return _end(words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit fails again
        console.print_error("error: whoever read our output went away")
        return 1


def _end(words: Sequence[str]) -> int:
    """The exit code of what was asked, whatever way it ends."""
    try:
        return _answer(words)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:
        return _fail(words, stop, str(stop) or "stopped", kind="Interrupted", hint=_how_to_go_on(words, stop))
    except AnyoloError as error:
        text = f"{error.where}: {error.message}" if error.where else error.message
        return _fail(words, error, text, kind=type(error).__name__, hint=error.hint)
    except Exception as error:
        hint = "anyolo did not expect this. Run it again with --traceback to see where it happened."
        return _fail(words, error, f"{type(error).__name__}: {error}", kind=type(error).__name__, hint=hint)


def _answer(words: Sequence[str]) -> int:
    from anyolo.cli.words import parse

    request = parse(words)
    if request.wants("--version", "-V"):
        print(f"anyolo {__version__}", flush=True)
        return 0
    if request.wants("--help", "-h") or not request.verb:
        from anyolo.cli.help import print_overview, print_verb

        print_verb(request.verb) if request.verb else print_overview()
        return 0
    return _run(request.verb, request.values, as_json=request.wants("--json"))


def _run(verb: str, values: dict[str, Any], *, as_json: bool) -> int:
    from anyolo.cli.verbs import VERBS
    from anyolo.config.load import load

    config = load(VERBS[verb], values).config  # a slip of the pen is answered before torch is loaded
    run = getattr(config, "run", None)
    with (
        redirect_stdout(sys.stderr if as_json else sys.stdout),
        console.use(_reporter(run is None or run.verbose)),
    ):
        from anyolo import api

        result = api.run(verb, values)
    if as_json and _process() == 0:
        console.print_document(_finite(result.to_json()))
    return 0 if result.ok else 1


def _process() -> int:
    """The number of this process where torchrun started several: one of them speaks for all."""
    return int(os.environ.get("RANK", "0"))


def _finite(document: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for a figure that does not exist."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


class _WarningsOnly(console.NullReporter):
    """For ``verbose=False``."""

    def warn(self, text: str) -> None:
        console.print_error(f"warning: {text}")


def _reporter(is_verbose: bool) -> console.Reporter:
    return console.RichReporter() if is_verbose else _WarningsOnly()


def _fail(words: Sequence[str], error: BaseException, text: str, *, kind: str, hint: str) -> int:
    if _process():
        if not isinstance(error, KeyboardInterrupt):
            console.print_error(f"process {_process()}: {text}")
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    if "--traceback" in words:
        import traceback

        traceback.print_exception(error)
    if "--json" in words:
        console.print_document({"error": text, "kind": kind, "hint": hint})
    else:
        console.print_error(f"error: {text}" + (f"\n{hint}" if hint else ""))
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, AnyoloError) else 1


def _how_to_go_on(words: Sequence[str], stop: KeyboardInterrupt) -> str:
    """The loop says what it saved (``KeyboardInterrupt("...")``); if not, what holds for any training run."""
    if stop.args or not any(word in {"train", "mode=train"} for word in words):
        return ""
    return "What was saved is in the run's weights/last.pt; go on with: anyolo train resume"


def _accept_any_character(*, as_json: bool) -> None:
    """A file name may hold what the terminal's encoding lacks; JSON is UTF-8 whatever the terminal."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(**({"encoding": "utf-8"} if as_json else {"errors": "backslashreplace"}))
