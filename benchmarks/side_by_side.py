"""Run two programs in turn, both orders, and print the ratio of their medians.

Every benchmark here is a list of commands that print one JSON line ``{"rate": ..., ...}``; a ratio is the
only claim. Absolute numbers belong to the machine named in the result file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RIVAL_DEFAULT = "/opt/venvs/rival/bin/python"


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--rival", default=RIVAL_DEFAULT, help="python of an environment with ultralytics==8.4.190"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    return parser


def run_once(command: Sequence[str], threads: int, cwd: Path) -> dict[str, Any]:
    """One process; the last JSON line on its stdout is the result."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "YOLO_OFFLINE": "true", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(lines[-1])  # type: ignore[no-any-return]


def compare(
    name: str,
    commands: Mapping[str, Sequence[str]],
    *,
    repeats: int,
    threads: int,
    cwd: Path,
    higher_is_better: bool = True,
) -> dict[str, Any]:
    """Alternate the commands (A B, B A, ...); medians, and ratios to ``rival``."""
    results: dict[str, list[dict[str, Any]]] = {who: [] for who in commands}
    for number in range(repeats):
        order = list(commands) if number % 2 == 0 else list(reversed(commands))
        for who in order:
            results[who].append(run_once(commands[who], threads, cwd))
            print(f"  {name} {number + 1}/{repeats} {who}: {results[who][-1]}", flush=True)
    medians = {who: statistics.median(r["rate"] for r in rows) for who, rows in results.items()}
    summary: dict[str, Any] = {"medians": medians, "runs": results, "ratios": {}}
    for who, value in medians.items():
        against = "rival_fp32" if who.endswith("fp32") and "rival_fp32" in medians else "rival"
        if not who.startswith("rival"):
            ratio = value / medians[against] if higher_is_better else medians[against] / value
            summary["ratios"][f"{who} / {against}"] = round(ratio, 3)
    print(f"{name}: {json.dumps(summary['ratios'])}", flush=True)
    return summary


def write(name: str, summary: Mapping[str, Any], rival: str) -> Path:
    """The result with date, machine and versions, under benchmarks/results/."""
    versions = {
        "ours": _versions(
            sys.executable, ["torch", "numpy", "opencv-python-headless", "numba", "onnxruntime"]
        ),
        "rival": _versions(rival, ["ultralytics", "torch", "torchvision", "numpy", "opencv-python"]),
    }
    today = datetime.date.today().isoformat()
    path = HERE / "results" / f"{name}-{today}.json"
    path.parent.mkdir(exist_ok=True)
    machine = {"cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()}
    document = {"date": today, "machine": machine, "versions": versions, **summary}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written {path}")
    return path


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """None where that Python is not: not every benchmark has a rival of its own environment."""
    if shutil.which(python) is None:
        return {}
    code = (
        "import importlib.metadata as m, json, sys\n"
        "def v(p):\n try: return m.version(p)\n except m.PackageNotFoundError: return ''\n"
        "print(json.dumps({p: v(p) for p in sys.argv[1:]}))"
    )
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(done.stdout or "{}")
    return {"python": platform.python_version(), **found}
