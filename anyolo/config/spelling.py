"""Values that people write in several ways, brought to the one that the settings know."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple


class Spelling(NamedTuple):
    """Stands beside a type in ``Annotated``: ``read`` turns what was given into that type before it is
    checked, and gives back unchanged what it does not know.
    """

    read: Callable[[Any], Any]


def device_words(value: Any) -> Any:
    """What Python users give for ``device``, as the command line has it: ``0``, ``[0, 1]``,
    ``torch.device("cuda:1")`` and None are ``"0"``, ``"0,1"``, ``"cuda:1"`` and ``"auto"``.
    """
    if value is None:
        return "auto"
    if isinstance(value, (list, tuple)):
        words = [device_words(part) for part in value]
        return ",".join(words) if all(isinstance(word, str) for word in words) else value
    if type(value).__module__ == "torch" and type(value).__name__ == "device":  # torch is not imported here
        return str(value)
    try:
        return value if isinstance(value, bool) else str(operator.index(value))
    except TypeError:
        return value
