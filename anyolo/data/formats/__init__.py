"""DOOR: data set formats. One file per format, one line in the table, tried in this order."""

from __future__ import annotations

from anyolo.data.formats.base import DatasetFormat
from anyolo.registry import Registry

FORMATS: Registry[DatasetFormat] = Registry(
    "data set format",
    {
        "coco": "anyolo.data.formats.coco:COCO",
        "darknet": "anyolo.data.formats.darknet:DARKNET",
        "yolo": "anyolo.data.formats.yolo:YOLO",
    },
    group="anyolo.data_formats",
)
