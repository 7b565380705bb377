"""Hostile files: each refused by name, quickly, in little memory, with nothing run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from anyolo.errors import CheckpointError, UntrustedFile
from anyolo.families.checkpoints import read_file
from tests.unit.hostile_files import CALLED, GOOD, corpus

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
    start = time.process_time()
    with pytest.raises(CheckpointError) as refusal:
        read_file(file)
    assert time.process_time() - start < 2
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


def test_the_whole_corpus_in_under_a_gibibyte(tmp_path):
    """Peak memory of a process that meets every file, PyTorch itself included."""
    for number, (data, _) in enumerate(CASES.values()):
        (tmp_path / f"{number}.pt").write_bytes(data)
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from anyolo.errors import CheckpointError
        from anyolo.families.checkpoints import read_file
        for path in Path(sys.argv[1]).iterdir():
            try:
                read_file(path)
            except CheckpointError:
                continue
            sys.exit(f"{path} was read")
        # not ru_maxrss, which a child inherits from the process that started it
        status = Path("/proc/self/status").read_text()
        print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    """)
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs /proc to read the peak memory of a process")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20  # kibibytes
