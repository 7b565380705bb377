"""One function per verb; the only code that sees a whole configuration.

Every function takes the settings of ``anyolo VERB --help`` as keywords and returns a result with
``to_json()`` (the document of ``--json``) and ``ok`` (whether the job was done).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from anyolo.api.benchmarking import BenchmarkResult, run_benchmark
from anyolo.api.converting import ConvertResult, run_convert
from anyolo.api.demonstration import DemoResult, run_demo
from anyolo.api.profiling import logger_info, profile
from anyolo.api.training import run_train
from anyolo.api.using import InfoResult, PredictResult, ValResult, run_export, run_info, run_predict, run_val
from anyolo.api.yolo import YOLO
from anyolo.export import ExportResult
from anyolo.registry import Registry
from anyolo.train.start import TrainResult


class Result(Protocol):
    ok: bool

    def to_json(self) -> dict[str, Any]: ...


VERBS: Registry[Callable[[Mapping[str, Any]], Result]] = Registry(
    "verb",
    {
        "demo": "anyolo.api.demonstration:run_demo",
        "train": "anyolo.api.training:run_train",
        "val": "anyolo.api.using:run_val",
        "predict": "anyolo.api.using:run_predict",
        "export": "anyolo.api.using:run_export",
        "benchmark": "anyolo.api.benchmarking:run_benchmark",
        "info": "anyolo.api.using:run_info",
        "profile": "anyolo.api.profiling:run_profile",
        "convert": "anyolo.api.converting:run_convert",
        "anchors": "anyolo.api.anchors:run_anchors",
        "devices": "anyolo.api.listing:run_devices",
        "audit": "anyolo.api.auditing:run_audit",
        "doctor": "anyolo.api.diagnosis:run_doctor",
    },
)


def run(verb: str, values: Mapping[str, Any]) -> Result:
    """Run a verb with settings as typed (strings are fine). Raises AnyoloError with what to do about it."""
    return VERBS.get(verb)(values)


def train(**settings: Any) -> TrainResult:
    """Train a detector; settings as in ``anyolo train --help``."""
    return run_train(settings)


def val(**settings: Any) -> ValResult:
    """Measure a detector on a data set; settings as in ``anyolo val --help``."""
    return run_val(settings)


def predict(**settings: Any) -> PredictResult:
    """Find objects; settings as in ``anyolo predict --help``. ``source`` may also be arrays and tensors."""
    return run_predict(settings)


def export(**settings: Any) -> ExportResult:
    """Write, reopen and compare a model for another runtime; settings as in ``anyolo export --help``."""
    return run_export(settings)


def benchmark(**settings: Any) -> BenchmarkResult:
    """A model and its exported files side by side; settings as in ``anyolo benchmark --help``."""
    return run_benchmark(settings)


def info(**settings: Any) -> InfoResult:
    """Describe a model; settings as in ``anyolo info --help``."""
    return run_info(settings)


def convert(**settings: Any) -> ConvertResult:
    """Write a weights file in another layout; settings as in ``anyolo convert --help``."""
    return run_convert(settings)


def strip(model: Any, **settings: Any) -> ConvertResult:
    """Take optimizer and training state out of a weights file, in place; ``half=True`` halves it."""
    return run_convert({"model": str(model), "strip": True, **settings})


def demo(**settings: Any) -> DemoResult:
    """The main job from nothing, offline; settings as in ``anyolo demo --help``."""
    return run_demo(settings)


__all__ = [
    "VERBS",
    "YOLO",
    "Result",
    "benchmark",
    "convert",
    "demo",
    "export",
    "info",
    "logger_info",
    "predict",
    "profile",
    "run",
    "strip",
    "train",
    "val",
]
