"""From the form of a model that is trained to the one that is used."""

from __future__ import annotations

import dataclasses

from anyolo.families.checkpoints import Checkpoint
from anyolo.nn.reduce import reduce


def to_inference_form(checkpoint: Checkpoint) -> Checkpoint:
    """Without what only training needs (an auxiliary branch): the same boxes from fewer tensors, named as
    files of that form name them. There is no way back. Weights are shared with the checkpoint given, which is
    the answer itself where there is nothing to leave out.
    """
    model = reduce(checkpoint.model)
    if model is checkpoint.model:
        return checkpoint
    spec = checkpoint.spec
    identity = spec.identify(spec.export_weights(model.state_dict()), model.rows)
    model.size = identity.size if identity else ""
    return dataclasses.replace(checkpoint, model=model, size=model.size)
