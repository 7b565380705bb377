"""The only printer: silent unless somebody asked for words, one JSON document on stdout."""

from __future__ import annotations

import io
import json

from anyolo import console
from anyolo.console import NullReporter, RichReporter, current, print_document, track, use


def test_a_library_call_writes_nothing(capsys):
    assert isinstance(current(), NullReporter)
    current().line("a")
    current().warn("b")
    current().table("t", ["c"], [[1]])
    assert list(track([1, 2], "work")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_use_holds_for_its_block_also_when_it_fails():
    outer, inner = NullReporter(), NullReporter()
    with use(outer):
        try:
            with use(inner):
                assert current() is inner
                raise ValueError
        except ValueError:
            pass
        assert current() is outer


def test_rich_writes_lines_warnings_tables_and_bars():
    stream = io.StringIO()
    with use(RichReporter(stream)):
        current().line("size [640, 416]")
        current().warn("careful [red]")
        current().table("Classes", ["name", "AP"], [["cat", 0.12345], ["dog", 1]])
        assert list(track(["a", "b", "c"], "reading")) == ["a", "b", "c"]
    text = stream.getvalue()
    for words in ("size [640, 416]", "warning: careful [red]", "Classes", "cat", "0.1235", "reading", "3/3"):
        assert words in text, words


def test_rich_writes_to_stdout_as_it_is_now(capsys):
    RichReporter().line("here")
    assert capsys.readouterr().out == "here\n"


def test_a_document_is_one_line_of_json(capsys):
    print_document({"größe": [1, None], "text": "a\nb"})
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {"größe": [1, None], "text": "a\nb"}
    console.print_error("wrong")
    assert capsys.readouterr().err == "wrong\n"
