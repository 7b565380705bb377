"""The host's memory: what this process may still take, what it holds, and the most it held for a while.

Linux tells, through /proc and the control groups of containers and batch systems; elsewhere the answer is
None. ``root`` is where the system's files lie. Imports no torch.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
SAMPLE_S = 0.005
# Version 1 of the control groups writes a number near 2**63 for "no limit".
_NO_LIMIT = 2**60


class Memory(NamedTuple):
    """Bytes that nobody uses, and bytes there are."""

    free_bytes: int
    total_bytes: int


@dataclass(slots=True)
class Peak:
    """``peak_bytes``: the most that was held, known once the block it belongs to has ended; None where nobody
    tells.
    """

    peak_bytes: int | None = None


def read_memory(root: Path = ROOT) -> Memory | None:
    """Of the machine, or of the tightest control group that this process is in.

    Files that the system would drop when asked count as free. Source: Linux kernel documentation, meminfo
    (``MemAvailable``), cgroup-v1/memory ("usage_in_bytes", "total_inactive_file"), cgroup-v2 ("memory.stat").
    """
    kib = _table(root / "proc/meminfo")
    if "MemAvailable" not in kib or "MemTotal" not in kib:
        return None
    free, total = kib["MemAvailable"] * 1024, kib["MemTotal"] * 1024
    for group in control_groups(root, "memory"):
        limit = _limit_of(group)
        if math.isinf(limit):
            continue
        # inactive files are what the kernel drops first; the others may be in use
        kept = _table(group / "memory.stat")
        droppable = kept.get("total_inactive_file", kept.get("inactive_file", 0))
        used = max((_number(group / name) for name in ("memory.current", "memory.usage_in_bytes")), default=0)
        free = min(free, int(limit) - max(0, used - droppable))
        total = min(total, int(limit))
    return Memory(max(0, free), total)


def memory_limit(root: Path = ROOT) -> float:
    """Bytes that the control groups grant; infinite without a limit."""
    return min((_limit_of(group) for group in control_groups(root, "memory")), default=math.inf)


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, from its own up to the top: any of them may hold a limit."""
    mounted = root / "sys/fs/cgroup"
    for line in read_lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / controllers if controllers else mounted
        own = top / place.lstrip("/")
        # inside a container the path is the host's, and only the top exists
        below = [own, *own.parents][: len(own.parts) - len(top.parts)]
        yield from dict.fromkeys([*below, top])


def held_bytes(root: Path = ROOT) -> int | None:
    """What this process holds, without the parts of files (libraries) that the system could drop."""
    kib = _table(root / "proc/self/status")
    return (kib["VmRSS"] - kib.get("RssFile", 0)) * 1024 if "VmRSS" in kib else None


@contextmanager
def watch(root: Path = ROOT) -> Iterator[Peak]:
    """The most that this process holds inside the block, as ``held_bytes`` counts.

    The kernel's own high water mark is set back and read where it lets us (it misses nothing); where not,
    the process is looked at every few milliseconds.
    """
    peak = Peak()
    files = _table(root / "proc/self/status").get("RssFile", 0)
    if "VmHWM" in _table(root / "proc/self/status") and _reset_high_water(root):
        yield peak
        peak.peak_bytes = max(0, _table(root / "proc/self/status")["VmHWM"] - files) * 1024
        return
    found: list[int] = []
    is_over = threading.Event()

    def look() -> None:
        while (held := held_bytes(root)) is not None:
            found.append(held)
            if is_over.wait(SAMPLE_S):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()
    if (last := held_bytes(root)) is not None:
        peak.peak_bytes = max([*found, last])


def first_words(path: Path) -> list[str]:
    """Words of the first line; none where there is no such file."""
    lines = read_lines(path)
    return lines[0].split() if lines else []


def read_lines(path: Path) -> list[str]:
    """None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _reset_high_water(root: Path) -> bool:
    """Source: Linux kernel documentation, /proc/PID/clear_refs: 5 resets the peak of the resident size."""
    try:
        (root / "proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _limit_of(group: Path) -> float:
    """Version 2 slows down whoever goes beyond ``memory.high``, as good as a limit."""
    limit = math.inf
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        words = first_words(group / name)
        if words and words[0].isdigit() and int(words[0]) < _NO_LIMIT:
            limit = min(limit, float(words[0]))
    return limit


def _number(path: Path) -> int:
    words = first_words(path)
    return int(words[0]) if words and words[0].isdigit() else 0


def _table(path: Path) -> dict[str, int]:
    """Lines of ``name: number`` or ``name number``; others are left out."""
    found = {}
    for line in read_lines(path):
        words = line.replace(":", " ", 1).split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found
