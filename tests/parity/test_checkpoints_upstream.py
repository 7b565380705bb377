"""Upstream's own files: every tensor name, shape and type, and the settings, as the golden facts say."""

from __future__ import annotations

import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from anyolo.families.checkpoints import load_model, read_file

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = sorted(SHARED.glob("golden/*/*/meta.json"))
OFFICIAL = {  # tensors, classes, strides; batch_norm layers with the class of the model
    "yolov8n.pt": (355, 80, (8, 16, 32), "ultralytics.nn.tasks.DetectionModel"),
    "yolov5n.pt": (349, 80, (8, 16, 32), "models.yolo.Model"),
    "yolov5s-v4v5-focus.pt": (362, 80, (8, 16, 32), "models.yolo.Model"),
    "v5lite-s.pt": (482, 80, (8, 16, 32), "models.yolo.Model"),
    "yolov5-lite-ppogg2021.pt": (482, 80, (8, 16, 32), "models.yolo.Model"),
    "yolo-fastestv2-coco2017-0.241078ap.pth": (444, None, (), None),
}


@pytest.mark.skipif(not GOLDEN, reason="needs golden/ of the folder shared/ beside the checkout")
@pytest.mark.parametrize("meta_file", GOLDEN, ids=lambda path: path.parent.name)
def test_golden_files(meta_file, tmp_path):
    meta = json.loads(meta_file.read_text())
    file = next(meta_file.parent.glob("random.p*"))
    if file.suffix == ".xz":
        (tmp_path / file.stem).write_bytes(lzma.decompress(file.read_bytes()))
        file = tmp_path / file.stem
    found = read_file(file)
    stored = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in found.tensors.items()]
    assert stored == meta["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in found.tensors.values())
    if "ckpt_yaml" in meta:
        assert {key: found.yaml[key] for key in meta["ckpt_yaml"]} == meta["ckpt_yaml"]
    if "model_class" in meta:
        assert found.meta["model_class"] == meta["model_class"]
        assert list(found.names) == meta["names"]
        assert found.nc == meta["nc"]
        assert list(found.stride) == meta["stride"]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(name):
    file = SHARED / "weights" / name
    if not file.exists():
        pytest.skip(f"needs weights/{name} of the folder shared/ beside the checkout")
    found = read_file(file)
    tensors, nc, stride, model_class = OFFICIAL[name]
    assert (len(found.tensors), found.nc, found.stride) == (tensors, nc, stride)
    assert found.meta.get("model_class") == model_class
    assert len(found.names) == (nc or 0)
    largest = max(found.tensors.values(), key=torch.Tensor.numel)
    assert _bytes_of(largest) in _storages(file)


def _storages(file: Path) -> set[bytes]:
    with zipfile.ZipFile(file) as archive:
        return {archive.read(name) for name in archive.namelist() if "/data/" in name}


def _bytes_of(tensor: torch.Tensor) -> bytes:
    return np.ascontiguousarray(tensor.numpy()).tobytes()


def test_a_loaded_model_answers_as_upstream_does():
    """Raw maps of the golden yolov8n, from its whole-module pickle, within ten times upstream's own noise."""
    folder = SHARED / "golden" / "yolov8" / "yolov8n"
    if not folder.exists():
        pytest.skip("needs golden/yolov8/yolov8n of the folder shared/ beside the checkout")
    meta = json.loads((folder / "meta.json").read_text())
    golden = np.load(folder / "golden.npz")
    found = load_model(folder / "random.pt")
    assert (found.spec.name, found.size, found.imgsz) == ("yolov8", "n", (640, 640))
    with torch.no_grad():
        output = found.model(torch.from_numpy(golden["x_u8"]).float() / 255)
    noise = np.max(meta["fp32_vs_fp64_raw_maxabs"])
    for index, level in enumerate(output.levels):
        np.testing.assert_allclose(level.numpy(), golden[f"raw_{index}"], rtol=0, atol=10 * noise)


def test_the_official_file_of_the_older_dialect():
    file = SHARED / "weights" / "yolov8n.pt"
    if not file.exists():
        pytest.skip("needs weights/yolov8n.pt of the folder shared/ beside the checkout")
    found = load_model(file)
    assert (found.spec.name, found.model.nc, found.names[:2], found.imgsz) == (
        "yolov8", 80, ("person", "bicycle"), (640, 640),
    )  # fmt: skip
