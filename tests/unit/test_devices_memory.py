"""What the host tells of its memory: the machine's own figures, control groups of both kinds, the peak."""

from __future__ import annotations

import pytest
import torch

from anyolo.devices import Memory, open_device
from anyolo.devices.host_memory import held_bytes, memory_limit, read_memory, watch

KIB, GIB = 2**10, 2**30
MEMINFO = {"proc/meminfo": f"MemTotal: {32 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {20 * 2**20} kB\n"}


def write(root, files):
    for name, text in {**MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_groups_the_machine_counts(tmp_path):
    assert read_memory(tmp_path) is None and held_bytes(tmp_path) is None
    write(tmp_path, {})
    assert read_memory(tmp_path) == Memory(20 * GIB, 32 * GIB)


def group2(own, parent="max"):
    return {
        "proc/self/cgroup": "0::/pods/one\n",
        "sys/fs/cgroup/pods/one/memory.max": f"{own}\n",
        "sys/fs/cgroup/pods/one/memory.current": f"{3 * GIB}\n",
        "sys/fs/cgroup/pods/one/memory.stat": f"anon {2 * GIB}\ninactive_file {GIB}\nactive_file 4096\n",
        "sys/fs/cgroup/pods/memory.max": f"{parent}\n",
        "sys/fs/cgroup/pods/memory.current": f"{7 * GIB}\n",
        "sys/fs/cgroup/pods/memory.stat": "inactive_file 0\n",
    }


@pytest.mark.parametrize(
    "own, parent, expected",
    [
        (6 * GIB, "max", Memory(4 * GIB, 6 * GIB)),  # 6 - (3 - 1 that can be dropped)
        ("max", "max", Memory(20 * GIB, 32 * GIB)),
        ("max", 8 * GIB, Memory(GIB, 8 * GIB)),  # the neighbours count in the parent
        (6 * GIB, 8 * GIB, Memory(GIB, 6 * GIB)),
        (64 * GIB, "max", Memory(20 * GIB, 32 * GIB)),  # more than there is
        (GIB, "max", Memory(0, GIB)),  # over its limit already
    ],
)
def test_groups_of_version_2(tmp_path, own, parent, expected):
    assert read_memory(write(tmp_path, group2(own, parent))) == expected


def test_whoever_passes_the_high_mark_is_slowed_down(tmp_path):
    root = write(tmp_path, {**group2("max"), "sys/fs/cgroup/pods/one/memory.high": f"{5 * GIB}\n"})
    assert read_memory(root) == Memory(3 * GIB, 5 * GIB)
    assert memory_limit(root) == 5 * GIB


def test_groups_of_version_1(tmp_path):
    files = {
        "proc/self/cgroup": "4:memory:/docker/a\n1:name=systemd:/docker/a\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes": f"{6 * GIB}\n",
        "sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes": f"{5 * GIB}\n",
        "sys/fs/cgroup/memory/docker/a/memory.stat": f"inactive_file 5\ntotal_inactive_file {2 * GIB}\n",
    }
    assert read_memory(write(tmp_path, files)) == Memory(3 * GIB, 6 * GIB)


def test_inside_a_container_only_the_top_exists(tmp_path):
    files = {
        "proc/self/cgroup": "0::/kubepods/somewhere/on/the/host\n",
        "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{GIB}\n",
    }
    assert read_memory(write(tmp_path, files)) == Memory(3 * GIB, 4 * GIB)


def test_what_is_held_leaves_files_out(tmp_path):
    write(tmp_path, {"proc/self/status": "VmHWM:\t900 kB\nVmRSS:\t700 kB\nRssFile:\t200 kB\n"})
    assert held_bytes(tmp_path) == 500 * KIB
    (tmp_path / "proc/self/clear_refs").write_text("")
    with watch(tmp_path) as peak:
        assert (tmp_path / "proc/self/clear_refs").read_text() == "5"
    assert peak.peak_bytes == 700 * KIB


def test_without_a_mark_to_set_back_the_process_is_looked_at(tmp_path):
    write(tmp_path, {"proc/self/status": "VmRSS:\t700 kB\nRssFile:\t200 kB\n"})
    with watch(tmp_path) as peak:
        write(tmp_path, {"proc/self/status": "VmRSS:\t800 kB\nRssFile:\t200 kB\n"})
    assert peak.peak_bytes == 600 * KIB
    with watch(tmp_path / "nowhere") as peak:
        pass
    assert peak.peak_bytes is None


def test_the_peak_of_a_block_is_what_was_held_in_it():
    device = open_device("cpu")
    if device.held_bytes() is None:
        pytest.skip("this system does not tell what a process holds")
    device.empty_cache()
    size = 300 << 20
    with device.watch_memory() as large:
        held = device.held_bytes()
        tensor = torch.ones(size // 4)
        del tensor
    with device.watch_memory() as small:
        pass
    assert 0.9 * size < large.peak_bytes - held < 1.3 * size
    assert small.peak_bytes < large.peak_bytes - size / 2


def test_the_processors_words_for_no_memory():
    device = open_device("cpu")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert device.exhausted(caught.value) and device.exhausted(MemoryError())
    assert not device.exhausted(RuntimeError("shapes do not match"))
