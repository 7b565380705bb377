"""Look into a wheel: everything the package reads is there, and nothing else is."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path


def faults(wheel: Path, package: Path) -> list[str]:
    """What ``wheel`` lacks or holds too much of, compared with the checkout's ``package`` folder."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    own = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    metadata = {name for name in packed if name.partition("/")[0].endswith(".dist-info")}
    missing = [f"missing: {name}" for name in sorted(own - packed)]
    strange = [f"does not belong: {name}" for name in sorted(packed - own - metadata)]
    licences = [
        f"missing: {word}"
        for word in ("LICENSE", "NOTICE")
        if not any(n.endswith(f"/{word}") for n in metadata)
    ]
    typed = [] if "anyolo/py.typed" in packed else ["missing: anyolo/py.typed"]
    return missing + strange + licences + typed


if __name__ == "__main__":
    found = faults(Path(sys.argv[1]), Path(__file__).resolve().parents[1] / "anyolo")
    print("\n".join(found) or f"{Path(sys.argv[1]).name} holds the package, its data and its licence")
    sys.exit(bool(found))
