"""A data set whose labels are what the small model finds: its mAP is high, and every slip costs some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from anyolo.postprocess import postprocess
from tests.conformance.small_model import NAMES, SIDE, network_input, pictures, small_checkpoint


def write_labelled(root: Path, count: int = 6) -> Path:
    """``data.yaml`` of ``count`` square pictures."""
    model = small_checkpoint()
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, pixels in enumerate(pictures(count, height=SIDE, width=SIDE)):
        cv2.imwrite(str(root / "images" / f"{number}.png"), pixels)
        images = torch.from_numpy(network_input(pixels, SIDE)[None])
        with torch.no_grad():
            found = model.model.predict(model.preprocess.normalise(images))
        (own,) = postprocess(found, conf=0.5, iou=0.5, max_det=30, multi_label=False)
        x1, y1, x2, y2 = np.clip(own.boxes_xyxy, 0, SIDE).T / SIDE
        rows = np.column_stack((own.classes, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))
        kept = rows[(rows[:, 3] > 0.05) & (rows[:, 4] > 0.05)]
        lines = [f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) for row in kept]
        (root / "labels" / f"{number}.txt").write_text("\n".join(lines))
    data = root / "data.yaml"
    data.write_text(yaml.safe_dump({"path": ".", "train": "images", "val": "images", "names": list(NAMES)}))
    return data
