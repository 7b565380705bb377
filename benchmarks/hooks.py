"""What each way of sending gradients costs: bytes of an update and mAP50, against sending them whole.

    python benchmarks/hooks.py                      yolov8n on wrgb, 30 epochs at 416, two CPU processes
    python benchmarks/hooks.py --hooks none,topk --epochs 2        a short trial

One run of ``anyolo train device=cpu:0,1`` for each hook, same seed, same data, nothing else different. The
bytes are what every process hands over, from the run's own ``results.csv``: the mean of all updates, with the
warm-up in which the hooks still send more, and the last epoch's. A run that has ended is not repeated, so a
killed script goes on.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOOKS = "none,fp16,bf16,powersgd,topk"
ALLOWED = 0.02
"""mAP50 that a hook may cost."""


def train(options: argparse.Namespace, hook: str) -> dict[str, Any]:
    """What the run prints as JSON; kept beside its folder."""
    kept = options.folder / f"{hook}.json"
    if not kept.exists():
        model, data = options.shared / "weights" / options.model, options.shared / "data" / options.data
        words = [
            f"model={model}", f"data={data}", f"imgsz={options.imgsz}", f"epochs={options.epochs}",
            "batch=16", "seed=0", "threads=1", "device=cpu:0,1", f"comm_hook={hook}", "plots=False",
            f"project={options.folder}", f"name={hook}", "exist_ok=True",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "anyolo.cli", "train", *words, "--json"],
            stdout=subprocess.PIPE, text=True, check=False, cwd=HERE.parent,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"comm_hook={hook} ended with {done.returncode}: {done.stdout}")
        kept.write_text(done.stdout, encoding="utf-8")
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def judge(options: argparse.Namespace, hook: str) -> dict[str, Any]:
    found = train(options, hook)
    with open(Path(found["run"]) / "results.csv", encoding="utf-8", newline="") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    sent = [float(row["sent_bytes_per_update"]) for row in rows]
    return {
        "hook": hook, "mAP50": found["metrics"]["mAP50"], "mAP50-95": found["metrics"]["mAP50-95"],
        "sent_bytes_per_update": round(statistics.mean(sent)), "sent_bytes_last_epoch": round(sent[-1]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hooks", default=HOOKS)
    parser.add_argument("--model", default="yolov8n.pt")
    parser.add_argument("--data", default="wrgb/data.yaml")
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    parser.add_argument("--folder", type=Path, default=Path("runs/hooks").resolve())
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    hooks = options.hooks.split(",")
    results = [judge(options, hook) for hook in hooks]
    whole = results[0]
    for one in results:
        one["of_the_bytes"] = round(one["sent_bytes_per_update"] / whole["sent_bytes_per_update"], 4)
        one["mAP50_lost"] = round(whole["mAP50"] - one["mAP50"], 4)
        print(json.dumps(one))
    today = datetime.date.today().isoformat()
    path = options.output or HERE / "results" / f"hooks-{today}.json"
    settings = {key: str(getattr(options, key)) for key in ("model", "data", "imgsz", "epochs")}
    path.write_text(
        json.dumps({"date": today, "settings": settings, "results": results}, indent=1) + "\n",
        encoding="utf-8",
    )
    print(f"written {path}")
    if lost := [one["hook"] for one in results if one["mAP50_lost"] > ALLOWED]:
        raise SystemExit(f"more than {ALLOWED:g} of mAP50 lost by {', '.join(lost)}")


if __name__ == "__main__":
    main()
