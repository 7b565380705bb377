"""What the rival would meet on backends it does not know: its training and validation under ``anyolo.audit``.

    python benchmarks/audit_rival.py                   YOLOv8n: one epoch of 16 pictures, and one validation

Runs ultralytics 8.4.190 as it is installed (``--rival PYTHON``), on the CPU, by nothing but its public
``train``, ``val`` and callbacks. Nothing is timed. A fault counts when the audit names its file and line and
what the backend says to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import side_by_side

BACKENDS = ("directml", "mlu", "mlu270")
PICTURES = 16
OPTIONS: dict[str, Any] = {"imgsz": 64, "batch": 8, "workers": 0, "device": "cpu", "plots": False}
TRAINING: dict[str, Any] = {"epochs": 1, "amp": False, "optimizer": "AdamW"}


class Done(Exception):
    """The epoch is over; what follows is validation, which is looked at by itself."""


def rival(backend: str, weights: str, data: str) -> None:
    """In the rival's environment: one JSON line with two inventories and their texts."""
    sys.path.insert(0, str(side_by_side.HERE.parent))
    import torch
    from ultralytics import YOLO, settings

    import anyolo

    settings.update({"sync": False})
    torch.set_num_threads(1)
    model = YOLO(weights)

    def stop(trainer: object) -> None:
        raise Done

    model.add_callback("on_train_epoch_end", stop)
    with tempfile.TemporaryDirectory() as folder:
        own = {**OPTIONS, "data": data, "project": folder, "verbose": False}

        def train() -> None:
            with contextlib.suppress(Done):
                model.train(**own, **TRAINING)

        jobs = {"train": train, "val": lambda: YOLO(weights).val(**own)}
        found = {
            name: anyolo.audit(job, backend=backend, job=f"ultralytics YOLOv8n, {name}")
            for name, job in jobs.items()
        }
    documents = {name: audit.to_json() for name, audit in found.items()}
    for document in documents.values():
        document["ops"] = [row for row in document["ops"] if row["verdict"] in {"unsupported", "fallback"}]
    text = "\n\n\n".join(audit.text() for audit in found.values())
    print(json.dumps({"text": text, "inventories": documents}))


def small_data(source: Path, folder: Path) -> str:
    """A few pictures of ``source`` with an absolute path, where the rival may write its caches."""
    rows = (source / "data.yaml").read_text(encoding="utf-8").splitlines()
    names = [row for row in rows if not row.startswith(("path:", "train:", "val:", "test:", "download:"))]
    for part in ("images", "labels"):
        (folder / part).mkdir()
    pictures = sorted(path for path in source.rglob("*") if path.suffix in {".jpg", ".png"})
    labels = {path.stem: path for path in source.rglob("*.txt") if "labels" in path.parts}
    for picture in [own for own in pictures if own.stem in labels][:PICTURES]:
        shutil.copyfile(picture, folder / "images" / picture.name)
        shutil.copyfile(labels[picture.stem], folder / "labels" / f"{picture.stem}.txt")
    head = [f"path: {folder}", "train: images", "val: images"]
    (folder / "data.yaml").write_text("\n".join([*head, *names]) + "\n", encoding="utf-8")
    return str(folder / "data.yaml")


def main() -> None:
    if len(sys.argv) == 5 and sys.argv[1] == "rival":
        rival(*sys.argv[2:])
        return
    options = side_by_side.arguments(__doc__ or "").parse_args()
    summary: dict[str, Any] = {}
    environment = {**os.environ, "YOLO_OFFLINE": "true", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    for backend in BACKENDS:
        with tempfile.TemporaryDirectory() as folder:
            data = small_data(options.shared / "data" / "coco128", Path(folder))
            command = [options.rival, str(Path(__file__).resolve()), "rival", backend]
            command += [str(options.shared / "weights" / "yolov8n.pt"), data]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment, cwd=folder
            )
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"text"')]
        if done.returncode or not lines:
            raise SystemExit(f"{backend} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        answer = json.loads(lines[-1])
        print(answer["text"], "\n\n", flush=True)
        summary[backend] = answer["inventories"]
    side_by_side.write("audit-rival", {"backends": summary}, options.rival)


if __name__ == "__main__":
    main()
