"""Asking in another process: answers, errors, crashes and silence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from anyolo.devices import DEVICES
from anyolo.devices.probe import ask


def test_an_answer_is_what_was_printed() -> None:
    assert ask("print(2)") == ("2", "", False)


def test_an_error_is_its_last_line() -> None:
    answer = ask("import sys\nprint(1)\nsys.stderr.write('warning: x\\n')\nimport no_such_module")
    assert answer == ("", "ModuleNotFoundError: No module named 'no_such_module'", False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_crash_is_survived_and_named() -> None:
    assert ask("import ctypes; ctypes.string_at(0)") == ("", "SIGSEGV", True)
    assert ask("import os; os.abort()") == ("", "SIGABRT", True)
    assert ask("import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == ("", "SIGKILL", True)


def test_another_exit_code_is_a_crash() -> None:
    assert ask("import os; os._exit(200)") == ("", "exit code 0xc8", True)


def test_silence_ends() -> None:
    assert ask("import time; time.sleep(60)", timeout_s=0.5) == ("", "no answer within 0.5 s", True)


def test_nothing_can_be_read_from_the_terminal() -> None:
    assert ask("print(repr(input()))").problem.startswith("EOFError")


PLUGINS = {
    "segfault": (
        "import ctypes\ndef is_available(): return ctypes.string_at(0)",
        "and crashes here (SIGSEGV)",
    ),
    "missing library": (
        "raise OSError('libd3d12.so: cannot open shared object file')",
        "fails here (OSError: libd3d12.so: cannot open shared object file)",
    ),
    "no card": ("def is_available(): return False\ndef device_count(): return 0", "finds no DirectX 12 card"),
    "one card": ("def is_available(): return True\ndef device_count(): return 1", ""),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize("kind", PLUGINS)
def test_a_plugin_that_crashes_is_reported(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, wanted = PLUGINS[kind]
    (tmp_path / "torch_directml.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    directml = DEVICES.get("directml")
    module = sys.modules[directml.__module__]
    module._problem.cache_clear()
    monkeypatch.setattr(module, "_OURS", "2.4.1")
    environment = dict(os.environ)
    try:
        reason = directml.unavailable()
    finally:
        module._problem.cache_clear()
    assert wanted in reason if wanted else reason is None
    assert directml.advice().startswith("Windows, or WSL 2"), "what is installed need not be installed"
    assert dict(os.environ) == environment


def test_a_plugin_for_another_torch_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch_directml.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    directml = DEVICES.get("directml")
    module = sys.modules[directml.__module__]
    module._problem.cache_clear()
    monkeypatch.setattr(module, "_OURS", "2.13.0")
    try:
        reason = directml.unavailable()
    finally:
        module._problem.cache_clear()
    assert reason is not None and reason.startswith(
        "torch_directml is made for torch 2.4.1, here is 2.13.0 ("
    )
    assert "undefined symbol" in reason and directml.advice().startswith("pip install torch-directml==")
