"""``main`` with a stand-in for the verbs: what is printed where, and every exit code."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import anyolo
from anyolo import console, errors
from anyolo.cli import main
from anyolo.cli.help import exit_codes
from anyolo.cli.verbs import VERBS
from anyolo.config.settings import settings_of


@pytest.fixture
def verbs(monkeypatch):
    """``verbs(job)`` makes every verb call ``job(verb, values)``."""

    def install(job):
        api = ModuleType("anyolo.api")
        api.run = job
        monkeypatch.setitem(sys.modules, "anyolo.api", api)
        monkeypatch.setattr(anyolo, "api", api, raising=False)

    return install


def result(document=None, *, ok=True):
    return SimpleNamespace(ok=ok, to_json=lambda: document or {})


def raises(error):
    def job(verb, values):
        raise error

    return job


def test_a_verb_gets_its_settings_as_typed(verbs):
    calls = []
    verbs(lambda verb, values: calls.append((verb, values)) or result())
    assert main(["train", "data=x.yaml", "--epochs", "5", "resume"]) == 0
    assert calls == [("train", {"data": "x.yaml", "epochs": "5", "resume": True})]


def test_a_job_that_was_not_done_exits_1(verbs):
    verbs(lambda verb, values: result(ok=False))
    assert main(["export"]) == 1


def test_json_is_one_document_on_stdout_and_all_else_on_stderr(verbs, capsys):
    def job(verb, values):
        console.current().line("working")
        console.current().warn("careful")
        print("a stray word of a package")
        return result({"größe": 1})

    verbs(job)
    assert main(["info", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"größe": 1}
    assert out.count("\n") == 1
    assert all(words in err for words in ("working", "careful", "a stray word"))


def test_a_figure_that_does_not_exist_is_null_in_json(verbs, capsys):
    verbs(lambda verb, values: result({"metrics": {"mAP50": math.nan}, "rows": [(1.5, math.inf)]}))
    assert main(["val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"metrics": {"mAP50": None}, "rows": [[1.5, None]]}


def test_people_get_words_on_stdout(verbs, capsys):
    def job(verb, values):
        console.current().line("working")
        return result({"a": 1})

    verbs(job)
    assert main(["info"]) == 0
    out, _ = capsys.readouterr()
    assert out == "working\n"


def test_verbose_false_leaves_only_warnings(verbs, capsys):
    def job(verb, values):
        console.current().line("working")
        console.current().warn("careful")
        return result()

    verbs(job)
    assert main(["val", "verbose=False"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: careful\n")


def test_a_slip_of_the_pen_never_reaches_the_verb(verbs, capsys):
    verbs(raises(AssertionError("not reached")))
    assert main(["train", "epochs=many"]) == 2
    assert main(["train", "epoch=1"]) == 2
    assert main(["tarin"]) == 2
    _, err = capsys.readouterr()
    assert "epochs='many' is not allowed: it takes a whole number, at least 1" in err
    assert "Did you mean 'epochs'" in err
    assert "Did you mean 'train'" in err


def every_error():
    def below(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    return list(below(errors.AnyoloError))


def made(kind):
    if kind is errors.UnknownName:
        return kind("model", "yolov8m2", ["yolov8m"])
    if kind is errors.MissingPackage:
        return kind("openvino", extra="openvino", needed_for="OpenVINO")
    return kind("it broke", where="a.txt:3", hint="Mend it.")


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_words_and_its_own_exit_code(kind, verbs, capsys):
    verbs(raises(made(kind)))
    assert main(["info"]) == kind.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {made(kind)}\n"
    assert str(kind.exit_code) in dict(exit_codes())


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_a_document_with_json(kind, verbs, capsys):
    verbs(raises(made(kind)))
    assert main(["info", "--json"]) == kind.exit_code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert set(document) == {"error", "kind", "hint"}
    assert document["kind"] == kind.__name__
    assert made(kind).message in document["error"]
    assert made(kind).where in document["error"]
    assert document["hint"] == made(kind).hint
    assert err == ""


def test_json_answers_also_when_the_line_itself_is_wrong(capsys):
    assert main(["--json", "train", "epoch=1"]) == 2
    assert json.loads(capsys.readouterr().out)["kind"] == "UnknownName"


def test_an_unexpected_error_is_short_and_its_traceback_one_switch_away(verbs, capsys):
    verbs(raises(ZeroDivisionError("division by zero")))
    assert main(["info"]) == 1
    _, err = capsys.readouterr()
    assert "ZeroDivisionError: division by zero" in err
    assert "--traceback" in err
    assert "Traceback" not in err
    assert main(["info", "--traceback"]) == 1
    _, err = capsys.readouterr()
    assert "Traceback (most recent call last)" in err


def test_ctrl_c_says_what_is_saved_and_how_to_go_on(verbs, capsys):
    verbs(raises(KeyboardInterrupt("stopped in epoch 3; go on with: anyolo train resume=runs/x")))
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "error: stopped in epoch 3; go on with: anyolo train resume=runs/x\n"
    verbs(raises(KeyboardInterrupt()))
    assert main(["train"]) == 130
    assert "anyolo train resume" in capsys.readouterr().err
    assert main(["val", "--json"]) == 130
    assert json.loads(capsys.readouterr().out) == {"error": "stopped", "kind": "Interrupted", "hint": ""}


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_verbs_flags_and_exit_codes(words, capsys):
    assert main(words) == 0
    out, _ = capsys.readouterr()
    for word in (*VERBS, "--json", "--traceback", "130"):
        assert re.search(rf"(^|\W){re.escape(word)}\b", out), word


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_page_names_every_setting_with_its_default(verb, capsys):
    assert main([verb, "--help"]) == 0
    out, _ = capsys.readouterr()
    for key, (setting, *_) in settings_of(VERBS[verb]).items():
        assert re.search(rf"^  {key}\b", out, re.MULTILINE), key
        if isinstance(setting.default, int | float):
            assert f"{key}={setting.default}" in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"anyolo {anyolo.__version__}\n"


def test_exit_codes_are_those_of_the_errors():
    stated = dict(exit_codes())
    assert stated["0"] == "done"
    assert stated["130"] == "stopped by the user"
    assert {str(kind.exit_code) for kind in every_error()} <= set(stated)


@pytest.mark.parametrize("words", [["--version"], ["train", "--help"], ["train", "epoch=1", "--json"]])
def test_a_reader_that_goes_away_is_not_a_crash(words):
    command = [sys.executable, "-m", "anyolo.cli", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.close()
    err = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(timeout=60) == 1
    assert err in {"", "error: whoever read our output went away\n"}  # rich leaves without a word


def test_the_module_runs_like_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "anyolo.cli", "train", "epoch=1", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["hint"].startswith("Did you mean 'epochs'")
