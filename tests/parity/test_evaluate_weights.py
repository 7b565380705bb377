"""Official weights through the whole of ``val``: files read, pictures fitted, boxes judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from anyolo import api

GOLDEN = {  # golden file: weights, where its figures are
    "yolov5n": ("yolov5n.pt", ("square", "mini79", "pycocotools")),
    "yolo-fastestv2": (
        "yolo-fastestv2-coco2017-0.241078ap.pth",
        ("stretch352", "mini79", "pycocotools_c001_i60"),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_mean_precision_is_the_golden_one(
    shared: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    """Nothing typed but model and data: the family's size, overlap and labels per box are its own."""
    weights, keys = GOLDEN[name]
    golden = json.loads(shared(f"golden/real_weights/{name}.json").read_text())["maps"]
    for key in keys:
        golden = golden[key]
    judged = api.val(
        model=str(shared(f"weights/{weights}")),
        data=str(shared("data/coco_mini_val79/annotations/instances_val2017.json")),
        plots=False,
        project=str(tmp_path),
    )
    assert judged.metrics["mAP50-95"] == pytest.approx(golden["AP"], abs=0.003)
    assert judged.metrics["mAP50"] == pytest.approx(golden["AP50"], abs=0.003)
