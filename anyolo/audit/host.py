"""The judge: the CPU in its plainest form, without the memory layouts and kernels that make it fast."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from anyolo.devices.base import Device, DeviceProfile


class Host(Device):
    """Plain memory, one tensor at a time, separate convolution and activation."""

    profile = DeviceProfile(name="host", torch_type="cpu", autocast_dtypes=(torch.bfloat16, torch.float16))

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")


@contextmanager
def one_thread(is_wanted: bool = True) -> Iterator[None]:
    """Torch with one thread inside, so that sums add up in another order than with several."""
    threads = torch.get_num_threads()
    if is_wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def usable_cores(root: Path = Path("/")) -> float:
    """Processors this process may use: those it is bound to, or the share its container was given.

    ``root`` is where the system's files lie.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(float(bound), processor_quota(root))


def processor_quota(root: Path = Path("/")) -> float:
    """Processors' worth of time that the control group (version 1 or 2) grants; infinite without a limit."""
    quota = math.inf
    for group in control_groups(root, "cpu"):
        words = _words(group / "cpu.max")
        if len(words) == 2 and words[0].isdigit():
            quota = min(quota, int(words[0]) / int(words[1]))
        limit, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
        if limit and period and int(limit[0]) > 0:
            quota = min(quota, int(limit[0]) / int(period[0]))
    return quota


def memory_limit(root: Path = Path("/")) -> float:
    """Bytes that the control group grants; infinite without a limit."""
    limit = math.inf
    for group in control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            words = _words(group / name)
            # version 1 writes a number near 2**63 for "no limit"
            if words and words[0].isdigit() and int(words[0]) < 2**60:
                limit = min(limit, float(words[0]))
    return limit


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, from its own up to the top: any of them may hold a limit."""
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted / controllers if controllers else mounted
        own = top / place.lstrip("/")
        # inside a container the path is the host's, and only the top exists
        below = [own, *own.parents][: len(own.parts) - len(top.parts)]
        yield from dict.fromkeys([*below, top])


def _words(path: Path) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
