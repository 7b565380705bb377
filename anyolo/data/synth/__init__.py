"""The data set of ``anyolo demo``: LED bulbs on wires, drawn, not photographed. Same seed, same bytes."""

from anyolo.data.synth.dataset import write_dataset
from anyolo.data.synth.lights import NAMES
from anyolo.data.synth.picture import draw

__all__ = ["NAMES", "draw", "write_dataset"]
