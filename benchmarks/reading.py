"""Time to read a YOLOv5s file of others with anyolo's own reader against torch's restricted one.

Torch cannot read such a file without running code of its package, so it gets the same tensors as a plain
state_dict; anyolo gets the file as it was released. Both are warm and take turns, on one thread.

python benchmarks/reading.py
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import side_by_side

READS = 15
WARM_UP = 3


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "time":
        time_reading(Path(sys.argv[2]))
        return
    parser = side_by_side.arguments(__doc__ or "")
    parser.add_argument("--weights", type=Path, help="default: weights/yolov5s-v4v5-focus.pt of --shared")
    options = parser.parse_args()
    weights = options.weights or options.shared / "weights" / "yolov5s-v4v5-focus.pt"
    command = [sys.executable, str(Path(__file__).resolve()), "time", str(weights.resolve())]
    runs = [side_by_side.run_once(command, 1, side_by_side.HERE.parent) for _ in range(options.repeats)]
    for run in runs:
        print(f"  {run}", flush=True)
    ratio = round(statistics.median(run["rate"] for run in runs), 3)
    print(f"reading: time of anyolo / time of torch.load: {ratio} (at most 1.5)", flush=True)
    side_by_side.write("reading", {"ratios": {"ours / torch.load": ratio}, "runs": runs}, options.rival)


def time_reading(weights: Path) -> None:
    """Print the ratio of the medians of ``READS`` reads each, in turns, both orders."""
    import torch

    from anyolo.families.checkpoints import read_file

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "state_dict.pt"
        torch.save(read_file(weights).tensors, plain)
        ways = {
            "ours": lambda: read_file(weights),
            "torch": lambda: torch.load(plain, map_location="cpu", weights_only=True),
        }
        times: dict[str, list[float]] = {who: [] for who in ways}
        for number in range(WARM_UP + READS):
            for who in list(ways) if number % 2 else list(reversed(ways)):
                start = time.perf_counter()
                found = ways[who]()
                times[who].append(time.perf_counter() - start)
                del found
        medians = {who: statistics.median(taken[WARM_UP:]) for who, taken in times.items()}
        size = {"file_bytes": weights.stat().st_size, "state_dict_bytes": plain.stat().st_size}
    milliseconds = {f"{who}_ms": round(1000 * value, 2) for who, value in medians.items()}
    print(json.dumps({"rate": round(medians["ours"] / medians["torch"], 3), **milliseconds, **size}))


if __name__ == "__main__":
    main()
