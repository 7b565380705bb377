"""The export formats whose runtimes are installed here; the others are skipped and say what they lack."""

from __future__ import annotations

from typing import Any

import pytest

from anyolo.errors import MissingPackage
from anyolo.export import EXPORTERS
from anyolo.export.base import require


def runnable(name: str, *others: Any) -> Any:
    """A format, and what else a test takes with it, as one set of its parameters."""
    try:
        require(EXPORTERS.get(name).requires, extra=name)
    except MissingPackage as error:
        return pytest.param(name, *others, marks=pytest.mark.skip(reason=str(error)))
    return pytest.param(name, *others)


FORMATS = [runnable(name) for name in EXPORTERS]
