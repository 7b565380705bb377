"""The contract of a model family: a bundle of values and functions, no inheritance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from anyolo.structures import Preprocess

if TYPE_CHECKING:
    from anyolo.config.schema import LossConfig
    from anyolo.nn.model import Detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a weights file turned out to be. ``rows`` is the model mapping (as from YAML) that rebuilds it."""

    family: str
    size: str
    nc: int
    rows: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """Everything the shared code needs to know of a family.

    ``models`` maps the names users type to sizes (yolov8n -> n); several names may mean one size.
    ``rows_file`` is the YAML beside the family's module, ``other_rows`` maps the sizes whose rows are in
    another one to that file. ``criterion(model, config)`` builds the loss module: ``(HeadOutput, Targets) ->
    LossReport``. ``loss_reduction`` says how micro-batches add up: "sum" over images, or "mean" over batches.
    ``identify(tensors, yaml)`` looks at state_dict shapes and the stored model yaml and returns an Identity
    or None. ``import_weights`` turns a file's state_dict into the model's own names; ``export_weights`` the
    way back. ``recipe`` holds the hyper-parameters of the field for this family, ``evaluation`` the settings
    it is judged with, both where they differ from config/schema; ``other_recipes`` what else differs in some
    sizes. ``variants`` are other ways to feed the same tensors, by the name that users type.
    """

    name: str
    models: Mapping[str, str]
    rows_file: str
    other_rows: Mapping[str, str] = field(default_factory=dict)
    criterion: Callable[[Detector, LossConfig], nn.Module]
    identify: Callable[[Mapping[str, Tensor], Mapping[str, Any]], Identity | None]
    preprocess: Preprocess = field(default_factory=Preprocess)
    loss_reduction: Literal["sum", "mean"] = "sum"
    batch_norm: tuple[float, float] = (1e-3, 0.03)
    variants: Mapping[str, Preprocess] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    other_recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    import_weights: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    export_weights: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    source: str = ""

    def sizes(self) -> tuple[str, ...]:
        """Every size once."""
        return tuple(dict.fromkeys(self.models.values()))

    def file_of(self, size: str = "") -> str:
        """The name of the YAML that holds the rows of a size."""
        return self.other_rows.get(size, self.rows_file)

    def recipe_of(self, size: str) -> dict[str, Any]:
        """How a size is trained, and judged while it is."""
        return {**self.evaluation, **self.recipe, **self.other_recipes.get(size, {})}

    def side_of(self, size: str) -> int:
        """The input side in pixels that the published weights of a size are made for."""
        return int(self.recipe_of(size).get("imgsz", 640))

    def rows_text(self, size: str = "") -> str:
        """The family's own YAML of rows."""
        return (resources.files("anyolo.families") / self.file_of(size)).read_text(encoding="utf-8")
