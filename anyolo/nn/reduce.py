"""The inference form of a model that carries an auxiliary branch for training; there is no way back.

Source: Wang et al. 2024, arXiv:2402.13616, section 4.1: the auxiliary branch can be removed after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anyolo.nn.model import Detector
from anyolo.nn.rows import IMAGE, Row, parse

SILENCE = "Silence"
"""The block that gives the picture a row; useless where the next row is all that reads it."""


def reduce(model: Detector) -> Detector:
    """The same detections from the rows that the main branch reads, modules shared; the model itself where it
    has nothing that only training needs.

    Rows are numbered anew. ``size`` is "": a size is the name of other rows.
    """
    reduced = model.head.reduce()
    if reduced is None:
        return model
    plan = parse(model.rows)
    *rows, head = plan.rows
    sources = [head.sources[position] for position in reduced.inputs]
    kept = _needed(rows, sources)
    number = {IMAGE: IMAGE, 0: IMAGE, **{old: new for new, old in enumerate(kept)}}
    written = [*model.rows["backbone"], *model.rows["head"]]
    backbone: list[list[Any]] = []
    rest: list[list[Any]] = []
    for old in kept:
        own = [number[s] for s in rows[old].sources]
        part = backbone if old < len(model.rows["backbone"]) else rest
        part.append([own if rows[old].many else own[0], *written[old][1:]])
    _, repeats, _, args = written[-1]
    rest.append([[number[s] for s in sources], repeats, reduced.block, args])
    mapping = {key: value for key, value in model.rows.items() if key != "scale" or "scales" in model.rows}
    blocks = [*(model.model[old] for old in kept), reduced.head]
    form = Detector(blocks, parse({**mapping, "backbone": backbone, "head": rest}))
    return form.train(model.training)


def _needed(rows: Sequence[Row], sources: Sequence[int]) -> list[int]:
    """Rows that these depend on, in order."""
    needed: set[int] = set()
    waiting = list(sources)
    while waiting:
        index = waiting.pop()
        if index != IMAGE and index not in needed:
            needed.add(index)
            waiting += rows[index].sources
    if rows[0].block == SILENCE and [index for index in needed if 0 in rows[index].sources] == [1]:
        needed.discard(0)
    return sorted(needed)
