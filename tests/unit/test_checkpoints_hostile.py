"""Hostile files: each refused, the offending name said, nothing run. The cost: test_checkpoints_cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anyolo.errors import CheckpointError, UntrustedFile
from anyolo.families.checkpoints import load_model, read_file
from tests.unit.hostile_files import CALLED, corpus
from tests.unit.hostile_opcodes import GOOD

CASES = corpus("MARKER")
FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.", "pickle.find_class",
    "socket.", "shutil.", "os.remove", "os.rename", "os.mkdir", "ctypes.", "webbrowser.",
)  # fmt: skip
_watched: list[str] | None = None


def _watch(event: str, args: tuple[object, ...]) -> None:
    if _watched is not None and (
        event.startswith(FORBIDDEN_EVENTS) or (event == "open" and args[1] not in ("r", "rb"))
    ):
        _watched.append(f"{event} {args}")


sys.addaudithook(_watch)  # cannot be taken away again; silent unless a test listens


@pytest.fixture
def events():
    """What the interpreter was asked to do meanwhile, apart from reading files."""
    global _watched
    _watched = []
    yield _watched
    _watched = None


def test_the_corpus_is_as_hostile_as_it_claims(tmp_path):
    """The same bytes do run code when they are unpickled: here in a process of its own."""
    marker = tmp_path / "ran"
    payload = corpus(str(marker))["protocol 2 bare"][0]
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({payload!r})"], check=True)
    assert marker.exists()


def test_a_harmless_file_of_the_same_make_is_read(tmp_path):
    (tmp_path / "good.pt").write_bytes(GOOD)
    assert read_file(tmp_path / "good.pt").tensors["w"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("case", CASES)
def test_refused(case, tmp_path, monkeypatch, events):
    monkeypatch.chdir(tmp_path)
    data, words = CASES[case]
    file = tmp_path / "weights.pt"
    file.write_bytes(data)
    events.clear()
    with pytest.raises(CheckpointError) as refusal:
        load_model(file)
    assert not events
    assert list(tmp_path.iterdir()) == [file]
    assert refusal.value.where == str(file)
    assert words in str(refusal.value)
    assert str(refusal.value).isprintable() or "\n" in str(refusal.value)


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_call_is_untrusted_and_named(name, layout, tmp_path):
    (tmp_path / "weights.pt").write_bytes(CASES[f"{layout} {name}"][0])
    with pytest.raises(UntrustedFile, match=r"Nothing was executed") as refusal:
        read_file(tmp_path / "weights.pt")
    assert name in refusal.value.message
