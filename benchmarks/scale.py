"""How training goes from 1 to 64 devices: a small simulation, checked against two processes that train.

    python benchmarks/scale.py                     measures (minutes; as root over slow wires too), simulates
    python benchmarks/scale.py --from results/scale-DATE.json        simulates again from kept measurements

Measured apart: reading a batch, an update with each hook's arithmetic in a process that talks to nobody (two
such at once, so that they share the machine as the pair does), and the wire while nothing else happens. From
these the simulation foretells updates of two processes that read, compute and exchange; those are then run,
over the loopback and, as root, between two network namespaces behind wires of 1 Gbit/s and 100 Mbit/s.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUCKET_BYTES = 25 * 2**20
"""torch exchanges gradients in buckets of this size, each as soon as the way back has filled it."""
FORWARD_SHARE = 1 / 3
"""Of an update's computing that is over before the first gradient exists."""
GATHERS = {"topk"}
"""Hooks that hand everything to everybody; the others sum."""
DEVICES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Between neighbours: seconds of a message of no length, and bytes a second."""

    latency_s: float
    bytes_per_s: float

    def transfer_s(self, sent: float, devices: int, *, gathers: bool) -> float:
        """A ring, as gloo and NCCL have it: a sum passes twice, a gathering carries all shares round.

        Source: Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms, sections 3 and 4.
        """
        hops = (devices - 1) if gathers else 2 * (devices - 1)
        carried = sent if gathers else sent / devices
        return hops * (self.latency_s + carried / self.bytes_per_s)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a device does for an update: ``computing_s`` are samples, one is drawn for every device."""

    computing_s: list[float]
    reading_s: float
    sent_bytes: float
    gathers: bool
    readers: int = 0


def simulate(job: Job, wire: Wire, devices: int, updates: int = 400) -> float:
    """Median seconds of an update. All wait for the slowest, then for the wire; readers work meanwhile."""
    chance, took = random.Random(0), []
    buckets = max(1, math.ceil(job.sent_bytes / BUCKET_BYTES))
    part_s = wire.transfer_s(job.sent_bytes / buckets, devices, gathers=job.gathers) if devices > 1 else 0.0
    for _ in range(updates):
        slowest = max(chance.choice(job.computing_s) for _ in range(devices))
        free = 0.0
        for number in range(1, buckets + 1):
            ready = slowest * (FORWARD_SHARE + (1 - FORWARD_SHARE) * number / buckets)
            free = max(free, ready) + part_s
        busy = max(slowest, free)
        took.append(max(busy, job.reading_s / job.readers) if job.readers else busy + job.reading_s)
    return statistics.median(took)


@contextlib.contextmanager
def slow_wire(rate: str) -> Iterator[list[tuple[list[str], dict[str, str]]]]:
    """Two namespaces of the network, and for each how to start a process in it."""
    mark = f"sc{os.getpid() % 10000}"
    ends = [(f"{mark}{end}", f"v{mark}{end}", f"10.231.9.{number}") for number, end in enumerate("ab", 1)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        ip("link", "add", ends[0][1], "type", "veth", "peer", "name", ends[1][1])
        for space, card, address in ends:
            ip("netns", "add", space)
            ip("link", "set", card, "netns", space)
            ip("-n", space, "addr", "add", f"{address}/24", "dev", card)
            ip("-n", space, "link", "set", card, "up")
            ip("-n", space, "link", "set", "lo", "up")
            shape = [
                "qdisc",
                "add",
                "dev",
                card,
                "root",
                "tbf",
                "rate",
                rate,
                "burst",
                "256kb",
                "latency",
                "100ms",
            ]
            ip("netns", "exec", space, "tc", *shape)
        yield [(["ip", "netns", "exec", space], {"GLOO_SOCKET_IFNAME": card}) for space, card, _ in ends]
    finally:
        for space, card, _ in ends:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
            subprocess.run(["ip", "link", "del", card], check=False, capture_output=True)


def two(options: argparse.Namespace, data: Path, world: int, places: Any = None) -> list[dict[str, Any]]:
    """Two processes at once, of one world or each of its own."""
    settings = json.dumps({"imgsz": options.imgsz, "batch": options.batch, "updates": options.updates})
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number in range(2):
            start, more = places[number] if places else ([], {})
            meeting = (
                "tcp://10.231.9.1:29533" if places else f"file://{folder}/{'pair' if world == 2 else number}"
            )
            rank = number if world == 2 else 0
            out = Path(folder) / f"{number}.json"
            words = [
                str(HERE / "scale_job.py"),
                str(out),
                str(rank),
                str(world),
                meeting,
                str(data),
                settings,
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent), **more}
            running.append(subprocess.Popen([*start, sys.executable, *words], env=environment))
        if any([process.wait() for process in running]):  # all are waited for
            raise SystemExit("a process failed; see above")
        return [json.loads((Path(folder) / f"{number}.json").read_text()) for number in range(2)]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from anyolo.data.synth import write_dataset

    with tempfile.TemporaryDirectory() as folder:
        data = write_dataset(Path(folder) / "data", train=64, val=2, size=max(160, options.imgsz))
        found: dict[str, Any] = {"alone": two(options, data, 1), "pairs": {"loopback": two(options, data, 2)}}
        for rate in ("1gbit", "100mbit") if os.geteuid() == 0 else ():
            with slow_wire(rate) as places:
                found["pairs"][rate] = two(options, data, 2, places)
    return found


def fitted(link: list[tuple[int, float]], *, gathers: bool) -> Wire:
    """Least squares of relative errors over the sizes tried by two; a sum of two passes two messages."""
    hops = 1 if gathers else 2
    rows = [(size if gathers else size / 2, seconds / hops) for size, seconds in link]
    weight = [1 / seconds**2 for _, seconds in rows]
    total = sum(weight)
    x = sum(w * size for w, (size, _) in zip(weight, rows, strict=True)) / total
    y = sum(w * seconds for w, (_, seconds) in zip(weight, rows, strict=True)) / total
    over = sum(w * (size - x) * (seconds - y) for w, (size, seconds) in zip(weight, rows, strict=True))
    slope = over / sum(w * (size - x) ** 2 for w, (size, _) in zip(weight, rows, strict=True))
    return Wire(latency_s=max(y - slope * x, 1e-6), bytes_per_s=1 / slope)


def check(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The simulation of two against the two that ran."""
    rows = []
    for place, pair in found["pairs"].items():
        for hook, run in pair[0]["hooks"].items():
            gathers = hook in GATHERS
            wire = fitted(pair[0]["link"]["all_gather" if gathers else "all_reduce"], gathers=gathers)
            foretold = simulate(job_of(found, hook), wire, 2)
            measured = statistics.median(run["update_s"])
            rows.append({
                "wire": place, "hook": hook, "sent_bytes": run["sent_bytes"],
                "measured_s": round(measured, 4), "foretold_s": round(foretold, 4),
                "off": round(foretold / measured - 1, 3),
            })  # fmt: skip
    return rows


def job_of(found: dict[str, Any], hook: str, **other: Any) -> Job:
    alone = found["alone"]
    sent = next(iter(found["pairs"].values()))[0]["hooks"][hook]["sent_bytes"]
    return Job(
        computing_s=[s for one in alone for s in one["hooks"][hook]["update_s"]],
        reading_s=statistics.median([s for one in alone for s in one["read_s"]]),
        sent_bytes=sent, gathers=hook in GATHERS, **other,
    )  # fmt: skip


def scenarios(found: dict[str, Any]) -> dict[str, tuple[Wire, Callable[[str], Job]]]:
    """This machine's processes on a slow and a usual wire; devices forty times as fast on a fast one.

    The last is an assumption, not a measurement: computing and a hook's arithmetic in a fortieth of the time,
    eight readers.
    """

    def faster(hook: str) -> Job:
        job = job_of(found, hook, readers=8)
        return Job(
            computing_s=[s / 40 for s in job.computing_s], reading_s=job.reading_s, readers=8,
            sent_bytes=job.sent_bytes, gathers=job.gathers,
        )  # fmt: skip

    return {
        "CPU processes, 1 Gbit/s": (
            Wire(latency_s=1e-4, bytes_per_s=1.18e8),
            lambda hook: job_of(found, hook),
        ),
        "CPU processes, 100 Mbit/s": (
            Wire(latency_s=1e-4, bytes_per_s=1.18e7),
            lambda hook: job_of(found, hook),
        ),
        "40 times faster devices, 8 readers each, 10 Gbit/s": (
            Wire(latency_s=3e-5, bytes_per_s=1.18e9),
            faster,
        ),
    }


def tables(found: dict[str, Any], hooks: list[str], batch: int) -> dict[str, dict[str, list[float]]]:
    """Pictures a second of all devices, by scenario and hook, for each of ``DEVICES``."""
    made: dict[str, dict[str, list[float]]] = {}
    for name, (wire, job) in scenarios(found).items():
        made[name] = {hook: [batch * n / simulate(job(hook), wire, n) for n in DEVICES] for hook in hooks}
    return made


def show(rows: list[dict[str, Any]], made: dict[str, dict[str, list[float]]]) -> None:
    """The tables of docs/scale.md."""
    print("| wire | hook | bytes an update | measured ms | foretold ms | off |\n|---|---|---|---|---|---|")
    for row in rows:
        times = f"{row['measured_s'] * 1e3:.0f} | {row['foretold_s'] * 1e3:.0f} | {row['off']:+.1%}"
        print(f"| {row['wire']} | {row['hook']} | {row['sent_bytes']:,.0f} | {times} |")
    for name, table in made.items():
        print(f"\n{name}: pictures/s\n\n| hook | {' | '.join(map(str, DEVICES))} |")
        print(f"|---{'|---' * len(DEVICES)}|")
        for hook, rates in table.items():
            print(f"| {hook} | {' | '.join(f'{rate:,.1f}' for rate in rates)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8, help="pictures of each process")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--from", dest="kept", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    if options.kept:
        document = json.loads(options.kept.read_text(encoding="utf-8"))
    else:
        settings = {
            "model": "yolov8n",
            "imgsz": options.imgsz,
            "batch": options.batch,
            "cores": os.cpu_count(),
        }
        document = {
            "date": datetime.date.today().isoformat(),
            "settings": settings,
            "found": measure(options),
        }
    found, batch = document["found"], document["settings"]["batch"]
    document["check"] = check(found)
    document["pictures_per_s"] = tables(found, list(found["alone"][0]["hooks"]), batch)
    show(document["check"], document["pictures_per_s"])
    path = options.output or options.kept or HERE / "results" / f"scale-{document['date']}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten {path}")


if __name__ == "__main__":
    main()
