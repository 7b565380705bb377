"""What a backend says while it works: warnings and errors, in a few words."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def listening() -> Iterator[list[warnings.WarningMessage]]:
    """Collects every warning inside, repeated ones too, and lets none through."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        yield heard


_PLACE = re.compile(r" \((?:Triggered internally at )?\S+:\d+\.?\)$")


def texts(heard: Iterable[warnings.WarningMessage]) -> tuple[str, ...]:
    """Each text once, in order, without the line of torch or of our own test at its end."""
    return tuple(dict.fromkeys(_PLACE.sub("", first_lines(word.message)) for word in heard))


def first_lines(said: BaseException | Warning | str, length: int = 300) -> str:
    """The beginning of a message, on one line: torch adds pages of registered kernels."""
    text = " ".join(str(said).split())
    return text if len(text) <= length else f"{text[:length]} ..."
