"""Every model in every export format: written, reopened, verified, timed beside PyTorch.

    python benchmarks/formats.py [my/best.pt=my/data.yaml ...] [--formats onnx,openvino] [--cells 5]

Writes docs/formats.md. A cell is one run of ``anyolo benchmark`` with the model and one format, so that both
take turns. It is kept as ``results/formats/MODEL/FORMAT.json``; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import side_by_side

import anyolo
from anyolo import console
from anyolo.deploy.benchmark import KEY
from anyolo.errors import AnyoloError
from anyolo.export import EXPORTERS

RESULTS = side_by_side.HERE / "results" / "formats"
PAGE = side_by_side.HERE.parent / "docs" / "formats.md"
OFFICIAL = {
    "yolov5n.pt": 640,
    "yolov8n.pt": 640,
    "yolox_nano.onnx": 416,
    "v5lite-s.pt": 640,
    "yolo-fastestv2-coco2017-0.241078ap.pth": 352,
}
"""Weights in shared/weights and the size each was trained at."""
DATA = "data/coco_val128/data.yaml"
INTRODUCTION = """\
# Models and export formats

Written by `benchmarks/formats.py`, not by hand. Every figure comes from a file that was written, reopened in
its runtime and compared with the model. Times are those of `anyolo benchmark` ([benchmark.md](benchmark.md))
on one machine, each format and PyTorch taking turns: only their ratio is meant.

## Latency to PyTorch's

From file to boxes, batch 1; below 1 is faster. *unverified*: the file differs from the model. *no*: for the
reason at the end.
"""


@dataclass(frozen=True)
class Model:
    """``imgsz`` None: what it was trained at. ``data`` "" measures no mAP."""

    path: Path
    imgsz: int | None = None
    data: str = ""

    @property
    def name(self) -> str:
        return self.path.stem.partition("-coco")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", help="weights, or weights=data.yaml to measure the mAP too")
    parser.add_argument("--shared", type=Path, default=side_by_side.HERE.parent.parent / "shared")
    parser.add_argument("--formats", default="", help="only these, with commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-n", type=int, default=5, help="passes of a round")
    parser.add_argument("--cells", type=int, default=0, help="stop after so many new ones")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--render", action="store_true", help="only write the page")
    options = parser.parse_args()
    models = [*official(options.shared), *map(own, options.models)]
    formats = options.formats.split(",") if options.formats else list(EXPORTERS)
    if not options.render:
        todo = [
            (model, format)
            for model in models
            for format in formats
            if options.again or not place(model.name, format).is_file()
        ]
        with console.use(console.RichReporter()):
            for model, format in todo[: options.cells or None]:
                measure(model, format, options)
    PAGE.write_text(page(list(cells())), encoding="utf-8")
    print(f"written {PAGE}")


def official(shared: Path) -> Iterator[Model]:
    data = shared / DATA
    for name, imgsz in OFFICIAL.items():
        if (path := shared / "weights" / name).is_file():
            yield Model(path, imgsz, str(data) if data.exists() else "")


def own(words: str) -> Model:
    path, _, data = words.partition("=")
    return Model(Path(path), None, data)


def place(model: str, format: str) -> Path:
    return RESULTS / model / f"{format}.json"


def measure(model: Model, format: str, options: argparse.Namespace) -> None:
    """One cell. What cannot be done is a cell with its reason."""
    size = {"imgsz": model.imgsz} if model.imgsz else {}
    found: dict[str, Any]
    with tempfile.TemporaryDirectory(prefix="anyolo-formats-") as folder:
        try:
            found = anyolo.benchmark(
                model=str(model.path), formats=format, data=model.data, batches="", project=folder,
                plots=False, threads=options.threads, rounds=options.rounds, n=options.n, **size,
            ).to_json()  # fmt: skip
        except AnyoloError as error:
            found = {"rows": [{"format": format, "passes": 0, "reason": str(error).replace("\n", ". ")}]}
    target = place(model.name, format)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    document = {**found, "model": model.name}
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(target)


def cells() -> Iterator[dict[str, Any]]:
    """All that is kept, models and formats in a fixed order."""
    order = {name: number for number, name in enumerate(EXPORTERS)}
    for folder in sorted(path for path in RESULTS.glob("*") if path.is_dir()):
        for path in sorted(folder.glob("*.json"), key=lambda p: (order.get(p.stem, len(order)), p.stem)):
            yield {**json.loads(path.read_text(encoding="utf-8")), "format": path.stem}


def page(found: Sequence[dict[str, Any]]) -> str:
    """The document: one table of ratios, then the figures of every cell, then why some have none."""
    models = list(dict.fromkeys(cell["model"] for cell in found))
    formats = list(dict.fromkeys(cell["format"] for cell in found))
    by_place = {(cell["model"], cell["format"]): cell for cell in found}
    ratios = [[model, *(short(by_place.get((model, f))) for f in formats)] for model in models]
    lines = [INTRODUCTION, table(["model", *formats], ratios)]
    for model in models:
        lines += ["", f"## {model}", "", *section([cell for cell in found if cell["model"] == model])]
    reasons = [(cell, row_of(cell)["reason"]) for cell in found if row_of(cell).get("reason")]
    if reasons:
        lines += ["", "## Why not", ""]
        lines += [f"- {cell['model']}, {cell['format']}: {reason}" for cell, reason in reasons]
    return "\n".join(lines) + "\n"


def section(found: Sequence[dict[str, Any]]) -> list[str]:
    measured = [cell for cell in found if len(cell["rows"]) > 1]
    facts = []
    if measured:
        cell, model = measured[0], measured[0]["rows"][0]
        size, where = cell["imgsz"], f"{model['device']}, torch {cell['versions']['torch']}"
        judged = f"; mAP50-95 on {Path(cell['data']).parent.name}: {model[KEY]:.4f}" if cell["data"] else ""
        facts = [f"{size[0]}x{size[1]}, {where}. The model's own file: {megabytes(model)} MB{judged}.", ""]
    columns = ["format", "verified", "max box px", "max score", KEY, "ms", "PyTorch ms", "ratio", "MB"]
    return [*facts, table(columns, [details(cell) for cell in found])]


def details(cell: dict[str, Any]) -> list[str]:
    row = row_of(cell)
    if not row["passes"]:
        return [cell["format"], "no", *[""] * 7]
    return [
        cell["format"],
        "yes" if row["verified"] else "**no**",
        figure(row["max_box_error_px"], ".1g"),
        figure(row["max_score_error"], ".1g"),
        figure(row[KEY], ".4f"),
        figure(row["latency_ms"], ".1f"),
        figure(cell["rows"][0]["latency_ms"], ".1f"),
        figure(row["ratio"], ".2f"),
        megabytes(row),
    ]


def short(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    row = row_of(cell)
    if not row["passes"]:
        return "*unverified*" if "differs from the model" in row["reason"] else "*no*"
    return figure(row["ratio"], ".2f")


def row_of(cell: dict[str, Any]) -> dict[str, Any]:
    """The format's own row; the model's is the first."""
    found: dict[str, Any] = cell["rows"][-1]
    return found


def megabytes(row: dict[str, Any]) -> str:
    return figure(row["size_bytes"] / 1e6, ".1f")


def figure(value: float | None, pattern: str) -> str:
    return "" if value is None else format(value, pattern)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
