"""The documents hold what the program does: every command can be typed, every verb, code and path exists."""

from __future__ import annotations

import re
import shlex

import pytest

from anyolo.cli.help import EXAMPLES, exit_codes
from anyolo.cli.verbs import VERBS
from anyolo.cli.words import parse
from anyolo.config.load import load
from anyolo.config.settings import ALIASES
from anyolo.errors import UnknownName
from tests.architecture.source import PACKAGE, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every ``anyolo VERB ...`` in the documents and in ``--help``, without a closing ellipsis."""
    found = re.findall(rf"anyolo ((?:{'|'.join(VERBS)})\b[^`\n&]*)", README + CLI)
    found += [line.removeprefix("anyolo ") for line, _ in EXAMPLES]
    return sorted({line.replace(" ...", "") for line in found})


@pytest.mark.parametrize("line", commands())
def test_a_command_in_the_documents_can_be_typed(line):
    if line == "train epoch=5":  # shown in the README for its answer
        with pytest.raises(UnknownName, match="unknown setting 'epoch'"):
            load(VERBS["train"], parse(line.split()).values)
        return
    request = parse(shlex.split(line))
    load(VERBS[request.verb], request.values)


def test_the_readmes_main_commands_are_there():
    assert {"demo", "train", "val", "predict", "export"} <= {line.split()[0] for line in commands()}


def test_docs_name_every_verb_alias_and_exit_code():
    rows = dict(re.findall(r"^\| (\d+) \| ([^|(]+?)(?: \(.*)? \|$", CLI, re.MULTILINE))
    assert rows == dict(exit_codes())
    assert set(re.findall(r"^\| `(\w+)` \|", CLI, re.MULTILINE)) == set(VERBS)
    for alias in ALIASES:
        assert f"`--{alias.replace('_', '-')}`" in CLI


def test_the_readmes_tree_is_the_tree():
    shown = set(re.findall(r"^  (\w+(?:/|\.py))", README, re.MULTILINE))
    there = {
        p.name + "/" * p.is_dir()
        for p in PACKAGE.iterdir()
        if p.name not in {"__pycache__", "__main__.py", "py.typed"}
    }
    assert shown == there


def test_the_readmes_install_commands_name_real_extras():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"\.\[(\w+)\]", README):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    assert "pip install -c constraints.txt . && anyolo demo" in README
    assert 'pip install -c constraints.txt ".[test]" && pytest' in README
