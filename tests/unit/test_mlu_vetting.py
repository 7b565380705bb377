"""Code of a folder runs only if it stays in the vocabulary of networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anyolo.errors import ExportError
from anyolo.export.porting import text_of
from anyolo.export.porting.vetting import load_code

HOSTILE = [
    "import sys",
    "import subprocess",
    "import torch as np",
    "import numpy",
    "from os import system",
    "from typing import List as os",
    "import os\nos.system('true')",
    "import os\nos.path.os.remove('a')",
    "open('a')",
    "eval('1')",
    "exec('1')",
    "__import__('sys')",
    "getattr(1, 'a')",
    "print(1)",
    "x = __builtins__",
    "x = ().__class__",
    "x = (1).real",
    "import numpy as np\nnp.load('a')",
    "import numpy as np\nnp.load('a', allow_pickle=True)",
    "import numpy as np\nnp.load('a', None, True, allow_pickle=False)",
    "import numpy as np\nx = np.load",
    "import numpy as np\nimport torch\nnp = torch\nnp.load('a', allow_pickle=False)",
    "import torch\ntorch.load('a')",
    "import torch\ntorch.load('a', allow_pickle=False)",
    "import numpy as np\ndef f(np):\n    return np.load('a', allow_pickle=False)",
    "import numpy as np\nnp.load('a', **{'allow_pickle': True})",
    "import numpy as np\nnp.zeros(3).tofile('a')",
    "class A:\n    def sum(self):\n        self.tofile('a')",
    "class A:\n    def sum(self):\n        self.load_state_dict(1)",
    "import numpy as np\nnp.save('a', 1)",
    "import torch\ntorch.ops.load_library('a')",
    "f = lambda: 1",
    "@f\ndef g():\n    pass",
    "def f():\n    global x",
    "try:\n    pass\nfinally:\n    pass",
    "x = f'{1}'",
    "def f():\n    yield 1",
    "del x",
    "x: int = 1",
    "x = *a, 1",
    "'{0.__class__}'.format(1)",
    "assert 1",
    "raise 1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_network_does_not_need_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="is nothing that a network or its postprocessing needs") as caught:
        load_code(tmp_path / "network.py", text)
    assert caught.value.where.startswith(f"{tmp_path / 'network.py'}:") and not os.listdir(tmp_path)


def test_what_is_no_python() -> None:
    with pytest.raises(ExportError, match="no Python"):
        load_code(Path("network.py"), "def")
    with pytest.raises(ExportError, match="no Python"):
        load_code(Path("network.py"), "x = '\0'")


def test_our_own_text_is_accepted_and_leaves_nothing_behind(tmp_path: Path) -> None:
    import sys

    before = set(sys.modules)
    module = load_code(tmp_path / "host.py", text_of("host.py"))
    assert module.place((10, 20), (40, 40), "letterbox")[0] == (20, 40)
    assert set(sys.modules) == before and not list(tmp_path.iterdir())
