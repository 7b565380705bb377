"""The class users know: open once, then train, validate, predict, export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, overload

from anyolo import console
from anyolo.api.benchmarking import BenchmarkResult, run_benchmark
from anyolo.api.models import open_model
from anyolo.api.training import run_train
from anyolo.api.using import (
    InfoResult,
    Opened,
    PredictJob,
    ValResult,
    open_for_use,
    run_export,
    run_info,
    run_val,
)
from anyolo.config.load import load
from anyolo.config.schema import DeviceConfig, ModelConfig, PredictVerb
from anyolo.deploy.results import Results
from anyolo.export import ExportResult
from anyolo.nn.model import Detector
from anyolo.train.start import TrainResult


class YOLO:
    """``YOLO("yolov8n.pt")``: a weights file, a model name, a YAML of rows, or an exported file.

    The methods take the settings of the verb of the same name as keywords. ``verbose=False`` keeps them
    silent.
    """

    def __init__(self, model: str = "yolov8n", *, family: str = "") -> None:
        self.config = ModelConfig(model=str(model), family=family)
        self._opened: dict[DeviceConfig, Opened] = {}

    @property
    def model(self) -> Detector:
        """The network, in float32 on the CPU."""
        return open_model(self.config).model

    @property
    def names(self) -> dict[int, str]:
        return dict(enumerate(self._open(DeviceConfig()).names))

    @overload
    def predict(self, source: Any, *, stream: Literal[False] = False, **settings: Any) -> list[Results]: ...

    @overload
    def predict(self, source: Any, *, stream: Literal[True], **settings: Any) -> Iterator[Results]: ...

    def predict(
        self, source: Any, *, stream: bool = False, **settings: Any
    ) -> list[Results] | Iterator[Results]:
        """Find objects in ``source``. Nothing is written unless ``save=True`` or its like asks.

        ``stream=True`` gives the results one by one as they are found and keeps no picture: for videos and
        cameras.
        """
        typed = {"save": False, **settings, "model": self.config.model}
        named = source if isinstance(source, str) else ""
        loaded = load(PredictVerb, {**typed, "source": named})
        config, has_size = loaded.config, "imgsz" in loaded.explicit
        with _voice(config.run.verbose):
            job = PredictJob(self._open(config.device), source, config, has_size=has_size)
        found = _spoken(job, config.run.verbose)
        return found if stream else list(found)

    __call__ = predict

    def train(self, **settings: Any) -> TrainResult:
        """Train; afterwards this object holds the best weights."""
        with _voice(settings.get("verbose", True)):
            result = run_train({**self._named(), **settings})
        self.config = ModelConfig(model=str(result.best))
        self._opened.clear()
        return result

    def val(self, **settings: Any) -> ValResult:
        with _voice(settings.get("verbose", True)):
            return run_val({**self._named(), **settings})

    def export(self, **settings: Any) -> ExportResult:
        with _voice(settings.pop("verbose", True)):
            return run_export({**self._named(), **settings})

    def benchmark(self, **settings: Any) -> BenchmarkResult:
        with _voice(settings.get("verbose", True)):
            return run_benchmark({**self._named(), **settings})

    def info(self, **settings: Any) -> InfoResult:
        with _voice(settings.pop("verbose", True)):
            return run_info({**self._named(), **settings})

    def _named(self) -> dict[str, Any]:
        return {"model": self.config.model, "family": self.config.family}

    def _open(self, device: DeviceConfig) -> Opened:
        if device not in self._opened:
            self._opened[device] = open_for_use(self.config, device)
        return self._opened[device]


def _spoken(job: PredictJob, verbose: bool) -> Iterator[Results]:
    """The job's results; its words are said while it works, not while the caller does."""
    results = iter(job)
    while True:
        with _voice(verbose):
            result = next(results, None)
        if result is None:
            return
        yield result


@contextmanager
def _voice(verbose: bool) -> Iterator[None]:
    """Words on the terminal for people who call from Python, unless a reporter was set already."""
    if not verbose:
        with console.use(console.NullReporter()):
            yield
    elif isinstance(console.current(), console.NullReporter):
        with console.use(console.RichReporter()):
            yield
    else:
        yield
