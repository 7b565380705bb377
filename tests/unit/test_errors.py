"""Errors say what, where and what to do; their tree is the one that the docstring draws."""

from __future__ import annotations

import re

import pytest

from anyolo import errors
from anyolo.errors import AnyoloError, DataError, MissingPackage, UnknownName


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = []
    above = {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^    ([|` ]*-? ?)([A-Z]\w+)\s{2,}", line)
        if found:
            depth = len(found[1]) // 3
            above[depth] = found[2]
            drawn.append((found[2], above.get(depth - 1, "Exception")))
    real = [
        (kind.__name__, kind.__mro__[1].__name__)
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, AnyoloError)
    ]
    assert sorted(drawn) == sorted(real)


def test_an_error_reads_what_where_what_to_do():
    assert (
        str(DataError("class 7 of 4", where="a.txt:3", hint="Mend the label."))
        == "a.txt:3: class 7 of 4\nMend the label."
    )
    assert str(DataError("class 7 of 4")) == "class 7 of 4"


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("yolov8m2", "Did you mean 'yolov8m' or 'yolov8n'?"),
        ("YOLOV8N", "Did you mean 'yolov8n'"),
        ("zzz", "Known: yolov8m, yolov8n."),
    ],
)
def test_an_unknown_name_suggests_or_lists(typed, hint):
    error = UnknownName("model", typed, ["yolov8n", "yolov8m"])
    assert error.message == f"unknown model {typed!r}"
    assert error.hint.startswith(hint)


def test_a_missing_package_names_the_command_that_installs_it():
    error = MissingPackage("numba", extra="fast", needed_for="compiled NMS")
    assert 'pip install "anyolo[fast]"' in error.hint
    assert error.exit_code == 2
