"""Which pictures an artefact is verified on: the user's, else the data set's, else drawn ones."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyolo import console
from anyolo.config.load import read_settings
from anyolo.data import open_data
from anyolo.data.pictures import is_picture, list_pictures
from anyolo.data.synth import draw
from anyolo.errors import AnyoloError, DataError
from anyolo.ops.image import Pixels, fit_image, read_image, to_network
from anyolo.ops.letterbox import place, rect_shape
from anyolo.structures import Preprocess
from anyolo.types import PathLike, SizeHW

MOST = 16


def pictures_for(source: str, weights: PathLike, meta: Mapping[str, Any]) -> list[Pixels]:
    """At most 16 pictures (HWC BGR), spread over what is there. Says which when they are not the user's own.

    Raises:
        DataError: ``source`` was given and holds no readable picture.
    """
    pictures = list(_read(picture_paths(source, weights, meta)))
    if pictures and not source:
        console.current().line(f"verifying on {len(pictures)} pictures of {_trained_on(Path(weights), meta)}")
    if pictures:
        return pictures
    if source:
        raise DataError(
            "no picture to verify with", where=source, hint="Give a file, folder, glob or data.yaml."
        )
    console.current().warn("verifying on drawn pictures; source=my/pictures verifies on yours")
    return [draw(0, "val", number, 640)[0] for number in range(4)]


def picture_paths(source: str, weights: PathLike = "", meta: Mapping[str, Any] | None = None) -> list[str]:
    """At most 16 files, spread over what ``source`` names (file, folder, glob, data file), else over the data
    that the weights were trained on; none where that is not known or has moved.
    """
    if source:
        return _spread(_paths(source))
    data = _trained_on(Path(weights), meta or {})
    try:
        return _spread([item.path for item in open_data(data, "val").items]) if data else []
    except AnyoloError:  # the data set has moved: that is no reason not to export
        return []


def network_inputs(
    pictures: Sequence[Pixels], preprocess: Preprocess, size_hw: SizeHW, *, batch: int, is_dynamic: bool
) -> Iterator[Pixels]:
    """Batches (B, 3, H, W) uint8 of ``size_hw``; for a dynamic artefact also one of each picture's aspect."""
    if is_dynamic:
        for pixels in pictures:
            size = pixels.shape[0], pixels.shape[1]
            gain = min(size_hw[0] / size[0], size_hw[1] / size[1])
            own = rect_shape(size, round(max(size) * gain), preprocess.stride)
            yield _network_input(pixels, preprocess, size_hw if preprocess.fit == "stretch" else own)[None]
        batch = 2
    for start in range(0, len(pictures), batch):
        group = [pictures[(start + k) % len(pictures)] for k in range(batch)]
        yield np.stack([_network_input(pixels, preprocess, size_hw) for pixels in group])
        if is_dynamic:
            return


def _network_input(pixels: Pixels, preprocess: Preprocess, size_hw: SizeHW) -> Pixels:
    placement = place((pixels.shape[0], pixels.shape[1]), size_hw, fit=preprocess.fit)
    return to_network(fit_image(pixels, placement, pad_value=preprocess.pad_value), preprocess.channels)


def _paths(source: str) -> list[str]:
    path = Path(source).expanduser()
    if path.suffix.lower() in {".yaml", ".yml", ".json", ".data"}:
        return [item.path for item in open_data(source, "val").items]
    if path.is_dir():
        return list_pictures(str(path))
    if path.is_file():
        return [str(path)]
    return sorted(name for name in glob.glob(str(path), recursive=True) if is_picture(name))


def _spread(paths: Sequence[str]) -> list[str]:
    """At most ``MOST`` of them, evenly over the list: neighbours in a folder are often the same scene."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(MOST, len(paths))).round().astype(int))
    return [paths[place] for place in places]


def _read(paths: Sequence[str]) -> Iterator[Pixels]:
    for path in paths:
        try:
            yield read_image(path).pixels
        except DataError as error:
            console.current().warn(f"skipped: {error}")


def _trained_on(weights: Path, meta: Mapping[str, Any]) -> str:
    """``data=`` of the run that wrote the weights, or of the foreign file's own training, or ""."""
    settings = weights.parent.parent / "args.yaml"
    if settings.is_file():
        return str(read_settings(settings).get("data") or "")
    arguments = meta.get("train_args")
    return str(arguments.get("data") or "") if isinstance(arguments, Mapping) else ""
