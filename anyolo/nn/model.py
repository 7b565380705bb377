"""The network built from rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from anyolo.errors import ModelError, UnknownName
from anyolo.nn.blocks import BLOCKS
from anyolo.nn.blocks.base import Inputs
from anyolo.nn.heads.base import Head
from anyolo.nn.measure import measure_strides
from anyolo.nn.rows import IMAGE, Channels, Plan, Row, parse
from anyolo.structures import HeadOutput, Predictions

MOST_MODULES = 20_000
"""Of a network, parts of parts included; YOLOv9 e has 1,763. A row can ask for many."""


class Detector(nn.Module):
    """Rows in sequence, the last one a head. Tensor names are ``model.<row>.<...>``, as upstream's.

    Attributes:
        nc: number of classes.
        channels: of the input pictures.
        strides: pixels per cell of every level, finest first.
        rows: plain mapping from which ``build`` makes this model again, size and nc included.
        size: which of the mapping's scales, or "".
    """

    def __init__(self, blocks: list[nn.Module], plan: Plan) -> None:
        super().__init__()
        self.model = nn.ModuleList(blocks)
        self.nc = plan.nc
        self.channels = plan.channels
        self.rows: dict[str, Any] = plan.mapping
        self.size = plan.size
        self._reads = tuple((row.sources, row.many) for row in plan.rows)
        self._kept = plan.kept()

    @property
    def head(self) -> Head:
        return cast(Head, self.model[-1])

    @property
    def strides(self) -> tuple[int, ...]:
        return self.head.strides

    def forward(self, images: Tensor) -> HeadOutput:
        """(B, C, H, W) float as the family's Preprocess gives it, sides multiples of the largest stride."""
        return cast(HeadOutput, self.head(self._features(images)))

    def decode(self, output: HeadOutput) -> Predictions:
        """Boxes in input pixels."""
        return self.head.decode(output)

    def predict(self, images: Tensor) -> Predictions:
        return self.decode(self(images))

    def sources(self, index: int) -> tuple[int, ...]:
        """The rows that a row reads, -1 for the picture."""
        return self._reads[index][0]

    def fix_size(self, size_hw: tuple[int, int] | None) -> None:
        """Decode inputs of this size only, so that a traced graph holds its grid as constants; None undoes
        it.
        """
        self.head.fix_size(size_hw)

    def row(self, images: Tensor, index: int) -> Any:
        """What the row ``index`` gives for pictures as ``forward`` takes them; -1 gives the pictures back."""
        return self._run(images, index + 1)[0]

    def _features(self, images: Tensor) -> Any:
        """What the head reads."""
        before_head = len(self.model) - 1
        return self._inputs(before_head, *self._run(images, before_head))

    def _run(self, images: Tensor, count: int) -> tuple[Any, dict[int, Any]]:
        """The output of the last of the first ``count`` rows, and of those that later ones read."""
        previous: Any = images
        kept: dict[int, Any] = {}
        for index in range(count):
            previous = self.model[index](self._inputs(index, previous, kept))
            if index in self._kept:
                kept[index] = previous
        return previous, kept

    def _inputs(self, index: int, previous: Any, kept: dict[int, Any]) -> Any:
        sources, many = self._reads[index]
        found = [previous if source == index - 1 else kept[source] for source in sources]
        return found if many else found[0]


def build(
    rows: Mapping[str, Any],
    *,
    size: str = "",
    nc: int | None = None,
    batch_norm: tuple[float, float] = (1e-3, 0.03),
    where: str = "model",
) -> Detector:
    """Make the network of a model mapping, weights at random, biases of the head initialised.

    Args:
        rows: as ``nn.rows.parse`` takes it.
        size, nc: instead of the mapping's own.
        batch_norm: eps and momentum of every batch norm.
        where: what error messages call the mapping.

    Raises:
        ModelError: a row that cannot be built; names ``where``, the row and, for an unknown module, near
        names.
    """
    plan = parse(rows, size=size, nc=nc, where=where)
    model = assemble(plan)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = batch_norm
    try:
        model.head.set_strides(_measure(model, plan))
    except ValueError as problem:
        raise plan.error(plan.rows[-1], str(problem)) from problem
    return model


def assemble(plan: Plan) -> Detector:
    """The modules of a plan, with all their tensors but nothing measured yet."""
    channels: list[Channels] = []
    blocks: list[nn.Module] = []
    modules = 0
    for row in plan.rows:
        block, out = _block(plan, row, channels)
        modules += sum(1 for _ in block.modules())
        if modules > MOST_MODULES:
            raise plan.error(row, f"more than {MOST_MODULES} layers up to here")
        blocks.append(block)
        channels.append(out)
    if not isinstance(blocks[-1], Head):
        raise plan.error(plan.rows[-1], "the last row must be a detection head")
    return Detector(blocks, plan)


def _block(plan: Plan, row: Row, channels: list[Channels]) -> tuple[nn.Module, Channels]:
    inputs = Inputs(
        channels=tuple(plan.channels if s == IMAGE else channels[s] for s in row.sources),
        args=row.args,
        repeats=row.repeats,
        scale=plan.scale,
        nc=plan.nc,
        activation=plan.activation,
    )
    try:
        kind = BLOCKS.get(row.block)
        if row.repeats == 1 or kind.repeats_inside:
            return kind.from_row(inputs)
        copies = [kind.from_row(inputs) for _ in range(row.repeats)]
        return nn.Sequential(*(block for block, _ in copies)), copies[0][1]
    except UnknownName as unknown:
        raise plan.error(row, unknown.message, unknown.hint) from None
    except (TypeError, ValueError, IndexError) as problem:
        raise plan.error(row, f"cannot be built from {list(row.args)}: {problem}") from problem


def _measure(model: Detector, plan: Plan) -> tuple[int, ...]:
    """Strides of the levels, from the sizes of the maps of a blank picture."""
    was_training = model.training
    model.eval()
    try:
        strides = measure_strides(model._features, model.model, plan.channels)
    except (RuntimeError, KeyError, ValueError) as problem:
        raise ModelError(f"the rows do not fit together: {problem}", where=plan.where) from problem
    model.train(was_training)
    return strides
