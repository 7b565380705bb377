"""A process of its own for one runtime: what it holds and how fast it is, is then its own, and so is its end.

One JSON line asks, one answers (``benchmark_child`` is the other side).
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from anyolo import console
from anyolo.api.models import open_model
from anyolo.api.using import Predict, open_for_use
from anyolo.config.load import load
from anyolo.config.schema import BenchmarkVerb, ExportConfig, PredictConfig
from anyolo.deploy.benchmark import Laps, limit_threads, time_pass
from anyolo.deploy.predictor import Predictor
from anyolo.devices.host_memory import held_bytes
from anyolo.errors import AnyoloError, ExportError
from anyolo.export import Judge, evaluation_settings, export_model, open_artifact, open_foreign
from anyolo.families import FAMILIES
from anyolo.nn.inference import Inference
from anyolo.ops.letterbox import input_size
from anyolo.structures import Predictions, Preprocess
from anyolo.types import SizeHW

MODEL, ARTIFACT, RIVAL = "model", "artifact", "rival"
"""The kinds of what can be opened."""
WARM_PASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """What runs. ``judge`` gives its mAP, ``facts`` what the row is told of it."""

    predict: Predict
    preprocess: Preprocess
    names: tuple[str, ...]
    input_hw: SizeHW | None
    takes_any_batch: bool
    judge: Callable[[Judge], float]
    facts: Mapping[str, Any]
    laps: Laps | None = None


class _Worker:
    """``job``: the settings of the verb (threads and size settled), family, names, preprocess, pictures."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.config = load(BenchmarkVerb, job["values"]).config
        self.wishes = self.config.benchmark
        self.names, self.family = tuple(job["names"]), str(job["family"])
        self.preprocess = Preprocess.from_json(job["preprocess"])
        self.size_hw = input_size(self.wishes.imgsz, self.preprocess.stride)
        self.pictures: list[str] = job["pictures"]
        self.predictors: dict[int, Predictor] = {}
        self.opened: _Opened | None = None
        limit_threads(self.config.device.threads)

    def export(self, format: str, batch: int, folder: str) -> dict[str, Any]:
        """Write, reopen and compare; the path of the artefact."""
        own, found = self.wishes, open_model(self.config.model)
        config = ExportConfig(
            format=format,
            imgsz=self.size_hw,
            batch=batch,
            dynamic=own.dynamic,
            nms=own.nms,
            conf=own.conf,
            iou=own.iou,
            max_det=own.max_det,
            source=own.source or own.data,
            output=folder,
        )
        os.makedirs(folder, exist_ok=True)
        return {"artifact": str(export_model(found, config, weights=self.config.model.model).artifact)}

    def open(self, kind: str, path: str) -> dict[str, Any]:
        """Time and memory of opening it and of its first passes."""
        self._warm_host()
        gc.collect()
        before, start = held_bytes(), time.perf_counter()
        self.opened = {MODEL: self._model, ARTIFACT: self._artifact, RIVAL: self._rival}[kind](path)
        load_ms = (time.perf_counter() - start) * 1e3
        first = time_pass(self._predictor(1), self.pictures[:1], self.opened.laps)
        self._passes(WARM_PASSES, 1)
        after = held_bytes()
        return {
            "load_ms": load_ms,
            "warmup_ms": first["network"],
            "memory_bytes": None if before is None or after is None else after - before,
            "takes_any_batch": self.opened.takes_any_batch,
            **self.opened.facts,
        }

    def turn(self, passes: int, batch: int) -> dict[str, Any]:
        """One pass to settle after the others' turns, then those that count."""
        self._passes(1, batch)
        return {"samples": self._passes(passes, batch)}

    def judge(self) -> dict[str, Any]:
        opened = self._own()
        settings = evaluation_settings(FAMILIES.get(self.family).evaluation)
        judge = Judge(
            data=self.wishes.data,
            preprocess=opened.preprocess,
            names=opened.names,
            size_hw=self.size_hw,
            settings=settings,
        )
        return {"precision": opened.judge(judge)}

    def _own(self) -> _Opened:
        assert self.opened is not None, "open comes first"
        return self.opened

    def _passes(self, count: int, batch: int) -> list[Any]:
        """The pictures in turn, from the first one on: every runtime gets the same."""
        predictor, paths, laps = self._predictor(batch), cycle(self.pictures), self._own().laps
        return [time_pass(predictor, list(islice(paths, batch)), laps) for _ in range(count)]

    def _predictor(self, batch: int) -> Predictor:
        if batch not in self.predictors:
            own, opened = self.wishes, self._own()
            config = PredictConfig(
                imgsz=self.size_hw, rect=False, batch=batch, conf=own.conf, iou=own.iou, max_det=own.max_det
            )
            self.predictors[batch] = Predictor(
                opened.predict, opened.preprocess, opened.names, config, input_hw=self.size_hw
            )
        return self.predictors[batch]

    def _warm_host(self) -> None:
        """Everything but the network once, boxes to suppress included: it is nobody's memory or time."""
        boxes = torch.tensor([[[0.0, 0, 20, 20], [1, 1, 20, 20], [30, 30, 40, 40]]])
        scores = torch.full((1, 3, len(self.names)), 0.999)

        def blank(images: Tensor) -> Predictions:
            return Predictions(boxes.expand(len(images), -1, -1), scores.expand(len(images), -1, -1))

        config = PredictConfig(imgsz=self.size_hw, rect=False)
        list(Predictor(blank, self.preprocess, self.names, config)(self.pictures[:2]))

    def _model(self, path: str) -> _Opened:
        opened = open_for_use(self.config.model, self.config.device)
        inference = opened.predict
        assert isinstance(inference, Inference)

        def predict(images: Tensor) -> Predictions:
            found = inference(images)
            inference.device.synchronize()
            return found

        return _Opened(
            predict=predict,
            preprocess=opened.preprocess,
            names=opened.names,
            input_hw=None,
            takes_any_batch=True,
            judge=lambda judge: judge.precision(predict),
            facts={"device": inference.device.describe()},
        )

    def _artifact(self, path: str) -> _Opened:
        opened = open_artifact(path, threads=self.config.device.threads)
        manifest = opened.manifest
        proved = manifest.verification or {}
        return _Opened(
            predict=opened.predict,
            preprocess=opened.preprocess,
            names=opened.names,
            input_hw=opened.input_hw,
            takes_any_batch=manifest.is_dynamic,
            judge=lambda judge: judge.precision_of(opened),
            facts={
                "size_bytes": manifest.size_bytes,
                "verified": bool(proved.get("verified")),
                "max_box_error_px": proved.get("max_box_error_px"),
                "max_score_error": proved.get("max_score_error"),
            },
        )

    def _rival(self, path: str) -> _Opened:
        opened = open_foreign(path, self.names, self.preprocess, threads=self.config.device.threads)
        if opened.input_hw is not None and opened.input_hw != self.size_hw:
            own = ",".join(map(str, opened.input_hw))
            raise ExportError(f"it takes pictures of {own} only", where=path, hint=f"Measure at imgsz={own}.")
        return _Opened(
            predict=opened.predict,
            preprocess=opened.preprocess,
            names=opened.names,
            input_hw=opened.input_hw,
            takes_any_batch=opened.batch is None,
            judge=lambda judge: judge.precision(opened.predict),
            facts={"size_bytes": os.path.getsize(path)},
            laps=lambda: opened.laps_ms,
        )


class _Ear(console.NullReporter):
    """Keeps warnings for the answer."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, text: str) -> None:
        self.heard.append(text)


def work() -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the same where there are no sessions
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to stdout must not get between the answers
    worker = None
    for line in sys.stdin:
        asked = json.loads(line)
        ear = _Ear()
        with console.use(ear):
            try:
                if worker is None:
                    worker = _Worker(asked)
                    answer: dict[str, Any] = {}
                else:
                    answer = getattr(worker, asked.pop("do"))(**asked)
            except AnyoloError as error:
                answer = {"error": error.message, "where": error.where, "hint": error.hint}
            except Exception as error:  # a runtime raises whatever it likes: its row says so
                answer = {"error": f"{type(error).__name__}: {error}", "where": "", "hint": ""}
        answers.write(json.dumps({**answer, "heard": ear.heard}) + "\n")
        answers.flush()
