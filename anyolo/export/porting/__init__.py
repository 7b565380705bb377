"""The parts of a port to a framework that cannot run anyolo: code written from a tape of the model, texts
that are copied as they are, and the check that such code says nothing else.
"""

from __future__ import annotations

from importlib import resources


def text_of(name: str) -> str:
    """A file of this folder, as it is copied into an artefact."""
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
