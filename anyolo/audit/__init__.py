"""Proof before owning the card: what a backend would do with a program, and whether a device computes right.

``audit`` needs torch and nothing else, so that it runs in other projects' environments.
"""

from __future__ import annotations

from anyolo.audit.inventory import Audit, audit, emulated, inventory, recording
from anyolo.audit.rows import Row

__all__ = ["Audit", "Row", "audit", "emulated", "inventory", "recording"]
