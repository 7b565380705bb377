"""What doctor says of a machine: invented ones, and the files a container shows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from anyolo.audit.host import processor_quota
from anyolo.audit.machine import (
    GIB,
    Machine,
    describe_machine,
    look_at_machine,
    machine_findings,
    size,
    vector_units,
    versions,
)
from anyolo.devices.host_memory import memory_limit

GOOD = Machine(
    cores=8,
    threads=8,
    variables={},
    vector_units=("AVX2", "AVX-512", "AMX BF16"),
    architecture="x86_64",
    has_onednn=True,
    has_numba=True,
    autocast_dtypes=("bfloat16",),
    memory_bytes=32 * GIB,
    memory_limit_bytes=math.inf,
    shared_bytes=16 * GIB,
    disk_bytes=100 * GIB,
    disk_folder="runs",
)


def findings(**changes):
    return {f.id: f for f in machine_findings(replace(GOOD, **changes))}


def test_a_good_machine_gives_no_finding():
    assert findings() == {}


@pytest.mark.parametrize(
    "changes, name, severity, words",
    [
        ({"cores": 2.0}, "threads", "warning", "8 threads on 2 usable cores"),
        (
            {"cores": 1.5, "threads": 4, "variables": {"OMP_NUM_THREADS": "4"}},
            "threads",
            "warning",
            "threads=1",
        ),
        ({"cores": 0.5, "threads": 2}, "threads", "warning", "threads=1"),
        ({"threads": 1, "variables": {"OMP_NUM_THREADS": "1"}}, "threads", "info", "OMP_NUM_THREADS=1"),
        ({"vector_units": ("AVX",)}, "vector", "warning", "AVX2"),
        ({"autocast_dtypes": ()}, "bfloat16", "info", "float32"),
        ({"has_onednn": False}, "onednn", "warning", "PyPI"),
        ({"has_numba": False}, "numba", "info", "anyolo[fast]"),
        ({"disk_bytes": GIB}, "disk", "warning", "1.0 GIB".replace("GIB", "GiB")),
        ({"disk_bytes": GIB / 50}, "disk", "error", "20 MiB"),
        ({"memory_limit_bytes": 2 * GIB}, "memory", "warning", "2.0 GiB"),
        ({"memory_bytes": GIB}, "memory", "warning", "workers"),
        ({"shared_bytes": 64 * 2**20}, "shm", "info", "64 MiB"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(changes, name, severity, words):
    found = findings(**changes)
    assert set(found) == {f"machine.{name}"}
    assert found[f"machine.{name}"].severity == severity
    assert words in found[f"machine.{name}"].message


def test_a_machine_that_tells_nothing_is_not_blamed():
    assert findings(vector_units=(), shared_bytes=None, memory_bytes=math.inf) == {}
    assert findings(vector_units=(), architecture="arm64") == {}


def test_one_thread_on_one_core_is_right():
    assert findings(cores=1, threads=1) == {}
    assert findings(cores=1.5, threads=2) == {}


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_limits_of_a_container_with_control_groups_2(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods/pod1\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kubepods/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/kubepods/pod1/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/kubepods/pod1/memory.max": "max\n",
            "sys/fs/cgroup/memory.max": "2147483648\n",
        },
    )
    assert processor_quota(root) == 1.5
    assert memory_limit(root) == 2 * GIB


def test_limits_of_a_container_with_control_groups_1(tmp_path):
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
            "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert processor_quota(root) == 2
    assert memory_limit(root) == GIB


def test_no_control_groups_no_limits(tmp_path):
    assert processor_quota(tmp_path) == memory_limit(tmp_path) == math.inf
    write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert processor_quota(tmp_path) == math.inf


def test_vector_units_by_their_own_names(tmp_path):
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_bf16\n"})
    assert vector_units(tmp_path) == ("AVX2", "AVX-512", "AMX BF16")
    write(tmp_path, {"proc/cpuinfo": "Features\t: fp asimd bf16 sve\n"})
    assert vector_units(tmp_path) == ("NEON", "BF16", "SVE")
    assert vector_units(tmp_path / "nowhere") == ()


def test_this_machine_can_be_looked_at(tmp_path):
    machine = look_at_machine(tmp_path / "not" / "yet" / "there", ("bfloat16",))
    assert machine.cores >= 0.01 and machine.threads >= 1 and machine.disk_bytes > 0
    assert set(describe_machine(machine)) >= {"cores", "threads", "memory", "free disk", "half precision"}
    assert {"anyolo", "torch", "numpy", "python", "system"} <= set(versions())


def test_sizes_for_people():
    assert [size(n) for n in (64 * 2**20, GIB, 1.5 * GIB, math.inf)] == [
        "64 MiB",
        "1.0 GiB",
        "1.5 GiB",
        "unknown",
    ]
