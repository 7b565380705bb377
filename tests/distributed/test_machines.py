"""Two network namespaces as two machines, a wire between them: torchrun trains over it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyolo.data.synth import write_dataset

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.231.7.1", "10.231.7.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[tuple[str, str]]]:
    """Name and network card of each."""
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    mark = uuid.uuid4().hex[:6]
    made = [(f"any{mark}{end}", f"v{mark}{end}") for end in "ab"]
    try:
        ip("link", "add", made[0][1], "type", "veth", "peer", "name", made[1][1])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no virtual network cards here: {error.stderr.decode().strip()}")
    try:
        for (machine, card), address in zip(made, ADDRESSES, strict=True):
            ip("netns", "add", machine)
            ip("link", "set", card, "netns", machine)
            ip("-n", machine, "addr", "add", f"{address}/24", "dev", card)
            ip("-n", machine, "link", "set", card, "up")
            ip("-n", machine, "link", "set", "lo", "up")
        yield made
    finally:
        for machine, card in made:
            subprocess.run(["ip", "netns", "del", machine], capture_output=True)
            subprocess.run(["ip", "link", "del", card], capture_output=True)


def sent_bytes(machine: str, card: str) -> int:
    file = f"/sys/class/net/{card}/statistics/tx_bytes"
    return int(subprocess.check_output(["ip", "netns", "exec", machine, "cat", file]))


@pytest.mark.slow
def test_torchrun_trains_over_two_machines(machines: list[tuple[str, str]], tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", train=8, val=4, size=160)
    runs = []
    for number, (machine, card) in enumerate(machines):
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "GLOO_SOCKET_IFNAME": card,
        }
        command = [
            "ip", "netns", "exec", machine, sys.executable, "-m", "torch.distributed.run",
            "--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1",
            f"--master-addr={ADDRESSES[0]}", "--master-port=29531",
            "-m", "anyolo.cli", "train", "model=v5lite-e", f"data={data}", f"project={tmp_path}", "name=run",
            "imgsz=96", "batch=4", "workers=0", "plots=False", "amp=False", "epochs=2", "nbs=0",
        ]  # fmt: skip
        pipe = subprocess.PIPE
        runs.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    said = [run.communicate(timeout=300) for run in runs]
    for run, (_, errors) in zip(runs, said, strict=True):
        assert run.returncode == 0, errors[-3000:]
    assert "one of 2" in said[0][0]
    rows = (tmp_path / "run/results.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == [1, 2]
    # four updates: the gradients of 700,000 weights and more in float32 went over the wire, both ways
    assert min(sent_bytes(*machine) for machine in machines) > 4 * 4 * 700_000
