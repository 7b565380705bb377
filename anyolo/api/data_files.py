"""Settings that a data file gives beside the data, as a layer beneath what is typed."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from anyolo import console
from anyolo.config.load import Layer
from anyolo.data import data_settings


class DataLayer(NamedTuple):
    """``layer`` for ``config.load``, and a line that says what of it holds: see ``tell``."""

    layer: Layer
    unused: tuple[str, ...]

    def tell(self, typed: Container[str]) -> None:
        """One line: what the file gave, what was typed instead, what of it means nothing here."""
        values = self.layer.values
        taken = [f"{key}={value.replace(' ', '')}" for key, value in values.items() if key not in typed]
        kept = [key for key in values if key in typed]
        parts = [f"took {' '.join(taken)}"] if taken else []
        parts += [f"your own {', '.join(kept)} instead of its"] if kept else []
        parts += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        if parts:
            console.current().line(f"{self.layer.origin}: {'; '.join(parts)}")


def read_data_layer(data: str, *, only: Container[str] | None = None) -> DataLayer:
    """What the file ``data`` says of these settings (all if not given); empty for most formats."""
    said = data_settings(data)
    values = {key: value for key, value in said.values.items() if only is None or key in only}
    return DataLayer(Layer(data, values, places=said.places), said.unused)
