"""What all tests share: the folder of facts beside the checkout, threads, hypothesis profiles."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Read by torch when it is first imported, here and in the processes that tests start: two threads on every
# machine, so that sums of floats add up in the same order.
os.environ.setdefault("OMP_NUM_THREADS", "2")

# Indexes and caches of the tests' data sets stay out of the user's cache folder.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="anyolo-tests-")

# The first example of a property often pays for an import or a compilation: no deadline. The same examples
# every time, so that a change is judged by what it changed; HYPOTHESIS_PROFILE=thorough looks for new ones.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", parent=settings.get_profile("house"), derandomize=False, max_examples=1000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """``shared("golden/letterbox.json")``: a fact file beside the checkout, or a skip that names it."""

    def find(path: str) -> Path:
        found = SHARED / path
        if not found.exists():
            pytest.skip(f"needs {path} of the folder shared/ beside the checkout")
        return found

    return find
