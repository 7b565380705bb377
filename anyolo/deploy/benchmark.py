"""From a file to final boxes, timed stage by stage; what many passes come to; the rows of a benchmark."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch

from anyolo.deploy.predictor import Predictor

STAGES = ("decode", "preprocess", "network", "postprocess")
WHOLE = "latency"
KEY = "mAP50-95"
Sample = Mapping[str, float]
Laps = Callable[[], Mapping[str, float]]


def limit_threads(threads: int) -> None:
    """Of everything on the host; runtimes of exported files are told apart."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def time_pass(predictor: Predictor, paths: Sequence[str], laps: Laps | None = None) -> Sample:
    """Milliseconds of every stage, and of the whole, for all pictures of one pass together.

    ``laps`` tells what of the last network call was the host's work ``before`` and ``behind`` the network.
    """
    start = perf_counter()
    frames = list(predictor.frames(list(paths)))
    decoded = perf_counter()
    results = list(predictor.look(frames))
    end = perf_counter()
    steps = ("preprocess", "inference", "postprocess")
    before, network, behind = (sum(result.speed[step] for result in results) for step in steps)
    inner = laps() if laps else {"before": 0.0, "behind": 0.0}
    return {
        "decode": (decoded - start) * 1e3,
        "preprocess": before + inner["before"],
        "network": network - inner["before"] - inner["behind"],
        "postprocess": behind + inner["behind"],
        WHOLE: (end - start) * 1e3,
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """Of many samples; milliseconds."""

    median: float
    p95: float

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        return Spread(float(np.median(samples)), float(np.percentile(samples, 95)))


@dataclass(slots=True, kw_only=True)
class BenchmarkRow:
    """What is known of one format so far; None for what is not. ``reason``: why it could not be measured.

    ``samples`` are the passes with one picture, ``images_per_s`` by batch. ``verified`` and the errors are
    those of the manifest; the model itself and a rival have none.
    """

    format: str
    is_rival: bool = False
    artifact: str = ""
    device: str = ""
    size_bytes: int | None = None
    verified: bool | None = None
    max_box_error_px: float | None = None
    max_score_error: float | None = None
    load_ms: float | None = None
    warmup_ms: float | None = None
    memory_bytes: int | None = None
    samples: list[Sample] = field(default_factory=list)
    images_per_s: dict[int, float] = field(default_factory=dict)
    precision: float | None = None
    reason: str = ""
    notes: list[str] = field(default_factory=list)

    def spread(self, stage: str) -> Spread | None:
        return Spread.of([sample[stage] for sample in self.samples]) if self.samples else None

    @property
    def best_batch(self) -> int | None:
        return max(self.images_per_s, key=lambda batch: self.images_per_s[batch], default=None)

    def add(self, samples: Sequence[Sample]) -> None:
        """Passes with one picture."""
        self.samples += samples
        self.images_per_s[1] = rate([sample[WHOLE] for sample in self.samples], 1)

    def to_json(self, reference: BenchmarkRow | None = None) -> dict[str, Any]:
        """``ratio``: this row's latency to that of ``reference``."""
        own, base = self.spread(WHOLE), reference.spread(WHOLE) if reference else None
        best = self.best_batch
        document: dict[str, Any] = {
            "format": self.format,
            "rival": self.is_rival,
            "verified": self.verified,
            "max_box_error_px": self.max_box_error_px,
            "max_score_error": self.max_score_error,
            KEY: self.precision,
            "size_bytes": self.size_bytes,
            "memory_bytes": self.memory_bytes,
            "load_ms": _rounded(self.load_ms),
            "warmup_ms": _rounded(self.warmup_ms),
        }
        for stage in (*STAGES, WHOLE):
            spread = self.spread(stage)
            document[f"{stage}_ms"] = _rounded(spread.median if spread else None)
            document[f"{stage}_p95_ms"] = _rounded(spread.p95 if spread else None)
        return {
            **document,
            "ratio": _rounded(own.median / base.median if own and base else None),
            "passes": len(self.samples),
            "images_per_s": _rounded(self.images_per_s.get(1)),
            "best_batch": best,
            "best_images_per_s": _rounded(self.images_per_s[best] if best else None),
            "device": self.device,
            "artifact": self.artifact,
            "reason": self.reason,
            "notes": list(self.notes),
        }


def rate(spent_ms: Sequence[float], batch: int) -> float:
    """Images per second of passes with so many pictures."""
    return batch * 1e3 / Spread.of(spent_ms).median


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The documents of rows as a table; empty where there is no figure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "notes": "; ".join(row["notes"])})
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    """To four digits that mean something at any scale: JSON and CSV then say the same."""
    return None if value is None else float(f"{value:.5g}")
