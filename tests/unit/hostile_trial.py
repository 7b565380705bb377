"""Open every file of a folder in a process of its own and report what that cost.

``python -m tests.unit.hostile_trial FOLDER`` prints a JSON line for each file: ``file``, ``kind`` of the
error (empty when the file was read), ``text``, CPU ``seconds``, peak ``growth`` of the memory in bytes, and
``events`` that no reader has reason for. A child may not write (no file of even one byte), uses 20 s of CPU
at most and 3 GiB of addresses; what dies of that is reported as ``killed``. Linux only.
"""

from __future__ import annotations

import codecs
import json
import os
import resource
import sys
import time
from pathlib import Path

import torch

from anyolo.families import FAMILIES
from anyolo.families.checkpoints import load_model

FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "pickle.find_class",
    "socket.", "shutil.", "os.remove", "os.rename", "os.mkdir", "os.symlink", "os.link", "os.truncate",
    "ctypes.", "_thread.start_new_thread", "webbrowser.", "marshal.loads", "compile", "exec",
)  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    for family in FAMILIES:  # what is imported once for all is no file's cost
        FAMILIES.get(family)
    for encoding in ("raw_unicode_escape", "latin1"):
        codecs.lookup(encoding)
    for path in sorted(Path(sys.argv[1]).iterdir()):
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            os.close(read_end)
            os.write(write_end, json.dumps(_try(path)).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        result = json.loads(said) if said else {"kind": "killed", "text": "by the limits of the trial"}
        print(json.dumps({"file": path.name, **result}), flush=True)


def _try(path: Path) -> dict[str, object]:
    events: list[str] = []
    addresses = _status("VmSize") + (3 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    before, start = _status("VmRSS"), time.process_time()
    sys.addaudithook(lambda event, args: _watch(events, event, args))
    kind = text = ""
    try:
        load_model(path)
    except BaseException as error:
        kind, text = type(error).__name__, str(error)
    seconds = time.process_time() - start
    return {
        "kind": kind,
        "text": text[:2000],
        "seconds": seconds,
        "growth": _status("VmHWM") - before,
        "events": events[:5],
    }


def _watch(events: list[str], event: str, args: tuple[object, ...]) -> None:
    flags = args[2] if event == "open" else None
    is_write = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if is_write or event.startswith(FORBIDDEN_EVENTS):
        events.append(f"{event} {str(args)[:200]}")


def _status(field: str) -> int:
    """Bytes; not ru_maxrss, which a child inherits from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
