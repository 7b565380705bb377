"""Training on several devices: ``device=0,1`` starts a process for each, by torch's own launcher.

``torchrun --nproc-per-node=2 -m anyolo.cli train ...`` is the same from outside, also over several machines.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyolo import console, errors
from anyolo.errors import AnyoloError, TrainingError

_PROCESS = "import sys; sys.path[:] = {path!r}; from anyolo.api.worker import work; sys.exit(work())"


def launch(values: Mapping[str, Any], processes: int, *, restarts: int) -> dict[str, Any]:
    """Train in ``processes`` processes of this machine; the first one's result, as JSON has it.

    Raises what the processes raised, TrainingError where one died without a word, KeyboardInterrupt.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="anyolo-") as folder:
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        verbose = not isinstance(console.current(), console.NullReporter)
        to_stderr = sys.stdout is sys.stderr  # --json keeps stdout for its one document
        threads = max(1, (os.cpu_count() or 1) // processes)
        own = {"threads": threads, **values}
        asked = {"values": own, "verbose": verbose, "to_stderr": to_stderr}
        request.write_text(json.dumps(asked), encoding="utf-8")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=restarts,
            monitor_interval=0.5,
        )
        console.current().line(f"{processes} processes, one for each device")
        try:
            elastic_launch(config, sys.executable)(
                "-c", _PROCESS.format(path=sys.path), str(request), str(answer)
            )
        except SignalException as stop:
            raise _ending(answer) or KeyboardInterrupt("stopped") from stop
        except ChildFailedError as error:
            raise _ending(answer) or TrainingError(
                f"a process of this run died: {_causes(error)}",
                hint="Go on with: anyolo train resume (restarts=3 does that by itself).",
            ) from error
        finally:
            restart_note(config.run_id, launcher=os.getpid()).unlink(missing_ok=True)
        ending = _ending(answer)
        if ending:
            raise ending
        done: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return done


def restart_note(run_id: str, *, launcher: int) -> Path:
    """Where the first process notes its run's folder, for those that torchrun starts after a failure."""
    return Path(tempfile.gettempdir(), f"anyolo-{run_id or 'run'}-{launcher}")


def _causes(error: Any) -> str:
    """Which processes, and how each ended."""
    said = []
    for rank, failure in sorted(error.failures.items()):
        how = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        said.append(f"number {rank} ({how})")
    return ", ".join(said)


def _ending(answer: Path) -> BaseException | None:
    """The error that the processes told of, if any."""
    if not answer.is_file():
        return None
    told = json.loads(answer.read_text(encoding="utf-8")).get("error")
    if told is None:
        return None
    if told["kind"] == "KeyboardInterrupt":
        return KeyboardInterrupt(told["message"])
    kind = getattr(errors, told["kind"], None)
    if not isinstance(kind, type) or not issubclass(kind, AnyoloError):
        kind = TrainingError
    error = AnyoloError.__new__(kind)
    AnyoloError.__init__(error, told["message"], where=told["where"], hint=told["hint"])
    return error
