"""The judge: the CPU in its plainest form, without the memory layouts and kernels that make it fast."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from anyolo.devices.base import Device, DeviceProfile
from anyolo.devices.host_memory import control_groups, first_words


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
        words = first_words(group / "cpu.max")
        if len(words) == 2 and words[0].isdigit():
            quota = min(quota, int(words[0]) / int(words[1]))
        limit, period = first_words(group / "cpu.cfs_quota_us"), first_words(group / "cpu.cfs_period_us")
        if limit and period and int(limit[0]) > 0:
            quota = min(quota, int(limit[0]) / int(period[0]))
    return quota
