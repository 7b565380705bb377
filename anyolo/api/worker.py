"""One of the processes that ``launching`` starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from anyolo import console
from anyolo.api.training import run_train
from anyolo.devices.distributed import placed
from anyolo.errors import AnyoloError


def work() -> int:
    """The life of one of the processes; the arguments are the files of request and answer."""
    request, answer = map(Path, sys.argv[1:])
    asked = json.loads(request.read_text(encoding="utf-8"))
    is_first, stream = placed().is_first, sys.stderr if asked["to_stderr"] else sys.stdout
    reporter = console.RichReporter(stream) if asked["verbose"] and is_first else console.NullReporter()
    try:
        with console.use(reporter):
            result = run_train(asked["values"])
    except KeyboardInterrupt as stop:
        if is_first:
            _write(answer, {"error": {"kind": "KeyboardInterrupt", "message": str(stop)}})
        return 1
    except AnyoloError as error:
        told = {"kind": type(error).__name__, "message": error.message, "where": error.where}
        _write(answer, {"error": {**told, "hint": error.hint}})
        return 1
    if is_first:
        _write(answer, result.to_json())
    return 0


def _write(path: Path, document: Any) -> None:
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(document), encoding="utf-8")
    os.replace(beside, path)
