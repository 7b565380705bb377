"""Seconds of ``anyolo --help`` against ``yolo --help`` (ultralytics 8.4.190).

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import side_by_side


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "time":
        start = time.perf_counter()
        subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(json.dumps({"rate": time.perf_counter() - start}))
        return
    options = side_by_side.arguments(__doc__ or "").parse_args()
    me = str(Path(__file__).resolve())
    commands = {
        "ours": [sys.executable, me, "time", sys.executable, "-m", "anyolo.cli", "--help"],
        "rival": [sys.executable, me, "time", str(Path(options.rival).parent / "yolo"), "--help"],
    }
    summary = side_by_side.compare(
        "startup", commands, repeats=options.repeats, threads=options.threads, cwd=side_by_side.HERE.parent,
        higher_is_better=False,
    )  # fmt: skip
    side_by_side.write("startup", summary, options.rival)


if __name__ == "__main__":
    main()
