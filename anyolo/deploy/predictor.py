"""From any source to ``Results``, with a PyTorch model or an exported file alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyolo import console
from anyolo.config.schema import PredictConfig
from anyolo.deploy.results import Boxes, Results
from anyolo.deploy.sources import Frame, Source
from anyolo.ops.image import fit_image, to_network
from anyolo.ops.letterbox import Placement, input_size, place, rect_shape
from anyolo.postprocess import postprocess, to_picture
from anyolo.structures import Detections, ImageRecord, Predictions, Preprocess
from anyolo.types import SizeHW


class Predictor:
    """``predict`` maps (B, 3, H, W) uint8 on the host, channels as ``preprocess`` says, to Predictions.

    ``input_hw`` is the one size an exported file may be fixed to; without it the size follows
    ``config.imgsz`` and, with ``config.rect``, the picture's aspect. Pictures of one input size share a
    forward, up to ``config.batch``; how they are batched does not change what is found. Raises ConfigError
    for a size that is no multiple of the stride.
    """

    def __init__(
        self,
        predict: Callable[[Tensor], Predictions],
        preprocess: Preprocess,
        names: Sequence[str] | Mapping[int, str],
        config: PredictConfig,
        *,
        input_hw: SizeHW | None = None,
    ) -> None:
        self.predict = predict
        self.preprocess = preprocess
        self.names = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
        self.config = config
        self.is_rect = config.rect and input_hw is None and preprocess.fit != "stretch"
        self.problems: list[str] = []
        self.input_hw = input_hw or input_size(config.imgsz, preprocess.stride)

    def __call__(self, source: Any) -> list[Results]:
        """All results at once; ``stream`` gives them one by one and keeps no picture in memory."""
        return list(self.stream(source))

    def stream(self, source: Any) -> Iterator[Results]:
        """Results in the order of the source. Unreadable files are skipped and named in ``problems``.

        Raises DataError where the source holds no picture at all.
        """
        frames = self.frames(source)
        self.problems = frames.problems
        yield from self.look(frames)
        if self.problems:
            shown = "; ".join(self.problems[:5]) + (" ..." if len(self.problems) > 5 else "")
            console.current().warn(f"{len(self.problems)} could not be read and were skipped: {shown}")

    def frames(self, source: Any) -> Source:
        """The pictures of a source, decoded as large as they are needed."""
        # a stretched picture has no longest side to stay above, so it is decoded in full
        at_least = None if self.preprocess.fit == "stretch" else max(self.input_hw)
        return Source(source, vid_stride=self.config.vid_stride, at_least=at_least)

    def look(self, frames: Iterable[Frame]) -> Iterator[Results]:
        """What is found in decoded pictures, in their order."""
        for group in self._groups(frames):
            yield from self._results(group)

    def placement(self, size_hw: SizeHW) -> Placement:
        """Where a picture of ``size_hw`` lies in its network input."""
        input_hw = self.input_hw
        if self.is_rect:
            gain = min(input_hw[0] / size_hw[0], input_hw[1] / size_hw[1])
            input_hw = rect_shape(size_hw, round(max(size_hw) * gain), self.preprocess.stride)
        return place(size_hw, input_hw, fit=self.preprocess.fit)

    def _groups(self, frames: Iterable[Frame]) -> Iterator[list[tuple[Frame, Placement]]]:
        """Runs of frames with one input size, at most a batch long."""
        group: list[tuple[Frame, Placement]] = []
        for frame in frames:
            placement = self.placement(frame.size_hw)
            if group and (len(group) == self.config.batch or group[0][1].input_hw != placement.input_hw):
                yield group
                group = []
            group.append((frame, placement))
        if group:
            yield group

    def _results(self, group: list[tuple[Frame, Placement]]) -> list[Results]:
        clock = [perf_counter()]
        inputs = [self._network_input(frame, placement) for frame, placement in group]
        images = torch.from_numpy(inputs[0][None] if len(inputs) == 1 else np.stack(inputs))
        clock.append(perf_counter())
        with torch.no_grad():
            predictions = self.predict(images)
        clock.append(perf_counter())
        records = [ImageRecord(frame.path, frame.size_hw, placement) for frame, placement in group]
        found = [
            to_picture(d, record) for d, record in zip(self._detections(predictions), records, strict=True)
        ]
        clock.append(perf_counter())
        steps = ("preprocess", "inference", "postprocess")
        speed = {s: (clock[i + 1] - clock[i]) * 1e3 / len(group) for i, s in enumerate(steps)}
        return [
            self._result(frame, detections, speed)
            for (frame, _), detections in zip(group, found, strict=True)
        ]

    def _network_input(self, frame: Frame, placement: Placement) -> Any:
        fitted = fit_image(frame.pixels, placement, pad_value=self.preprocess.pad_value)
        return to_network(fitted, self.preprocess.channels)

    def _detections(self, predictions: Predictions) -> list[Detections]:
        return postprocess(
            predictions,
            conf=self.config.conf,
            iou=self.config.iou,
            max_det=self.config.max_det,
            agnostic=self.config.agnostic_nms,
            classes=self.config.classes,
            multi_label=False,
        )

    def _result(self, frame: Frame, detections: Detections, speed: Mapping[str, float]) -> Results:
        rows = np.column_stack((detections.boxes_xyxy, detections.scores, detections.classes))
        boxes = Boxes(torch.from_numpy(rows.astype(np.float32, copy=False).reshape(-1, 6)), frame.size_hw)
        is_whole = frame.pixels.shape[:2] == frame.size_hw
        pixels = frame.pixels if is_whole else frame.full_pixels
        return Results(
            pixels, frame.path, self.names, boxes, speed=speed, video=frame.video, number=frame.number
        )
