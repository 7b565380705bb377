"""Training images/s and peak memory: YOLOv8n at 416, batch 16, two threads, against ultralytics 8.4.190.

    python benchmarks/training.py                       all four: ours and the rival's, as shipped and in
    float32

Rate: pictures of the second epoch (the first warms up) over its seconds, loader included, validation
excluded. Both fine-tune the same yolov8n.pt on the same wrgb tiles with their own default recipe.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import side_by_side

EPOCHS = 2


def ours(weights: str, data: str, amp: bool, threads: int) -> None:
    from anyolo import api
    from anyolo.train import hooks

    rates: list[float] = []

    class Clock(hooks.QuietHook):
        """Times whole epochs of updates: from the first batch asked for to the last update done."""

        def __init__(self) -> None:
            self.started = time.perf_counter()
            self.images = 0

        def on_epoch(self, run: object) -> None:
            self.started, self.images = time.perf_counter(), 0

        def after_step(self, run, report, batches) -> None:  # type: ignore[no-untyped-def]
            self.images += sum(len(batch.images) for batch in batches)
            if run.index == len(run.loader):
                rates.append(self.images / (time.perf_counter() - self.started))

        def after_epoch(self, run) -> None:  # type: ignore[no-untyped-def]
            self.started, self.images = time.perf_counter(), 0

    make = hooks.default_hooks
    # last in line, so that its clock restarts after the evaluation of the epoch before
    hooks.default_hooks = lambda *a, **k: [*make(*a, **k), Clock()]  # type: ignore[assignment]
    from anyolo.train import start

    start.default_hooks = hooks.default_hooks
    with tempfile.TemporaryDirectory() as folder:
        api.train(
            model=weights,
            data=data,
            imgsz=416,
            batch=16,
            epochs=EPOCHS,
            amp=amp,
            project=folder,
            plots=False,
            threads=threads,
            device="cpu",
        )
    report(rates[-1])


def rival(weights: str, data: str, amp: bool, threads: int) -> None:
    import torch
    from ultralytics import YOLO, settings

    settings.update({"sync": False})
    rates: list[float] = []
    clock = {"start": 0.0}
    model = YOLO(weights)

    def begin(trainer) -> None:  # type: ignore[no-untyped-def]
        # choosing the CPU sets the rival to one thread less than there are processors
        torch.set_num_threads(threads)
        clock.update(start=time.perf_counter())

    model.add_callback("on_train_epoch_start", begin)

    def finish(trainer) -> None:  # type: ignore[no-untyped-def]
        rates.append(len(trainer.train_loader.dataset) / (time.perf_counter() - clock["start"]))

    model.add_callback("on_train_epoch_end", finish)
    with tempfile.TemporaryDirectory() as folder:
        model.train(
            data=data,
            imgsz=416,
            batch=16,
            epochs=EPOCHS,
            amp=amp,
            project=folder,
            plots=False,
            device="cpu",
            workers=threads,
            verbose=False,
        )
    report(rates[-1])


def report(rate: float) -> None:
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    )
    print(json.dumps({"rate": round(rate, 3), "peak_mib": peak // 1024}))


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in {"ours", "rival"}:
        _, who, weights, data, amp, threads = sys.argv
        globals()[who](weights, data, amp == "amp", int(threads))
        return
    options = side_by_side.arguments(__doc__ or "").parse_args()
    weights = str(options.shared / "weights" / "yolov8n.pt")
    with tempfile.TemporaryDirectory() as folder:
        data = copy_data(options.shared / "data" / "wrgb", Path(folder))
        tail = [weights, data]
        threads = str(options.threads)
        me = str(Path(__file__).resolve())
        commands = {
            "ours": [sys.executable, me, "ours", *tail, "amp", threads],
            "rival": [options.rival, me, "rival", *tail, "amp", threads],
            "ours_fp32": [sys.executable, me, "ours", *tail, "fp32", threads],
            "rival_fp32": [options.rival, me, "rival", *tail, "fp32", threads],
        }
        summary = side_by_side.compare(
            "training",
            commands,
            repeats=options.repeats,
            threads=options.threads,
            cwd=side_by_side.HERE.parent,
        )
    side_by_side.write("training", summary, options.rival)


def copy_data(source: Path, folder: Path) -> str:
    """A writable copy with an absolute path: the rival writes beside the data and reads from its own root."""
    import shutil

    target = folder / source.name
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    rows = (target / "data.yaml").read_text(encoding="utf-8").splitlines()
    rows = [f"path: {target}" if row.startswith("path:") else row for row in rows]
    (target / "data.yaml").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(target / "data.yaml")


if __name__ == "__main__":
    main()
