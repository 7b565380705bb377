"""A table from a name to ``"module:object"``, loaded when asked for.

Every door of the house (devices, dataset formats, families, export formats) and the block and head tables
are a ``Registry``. Third-party packages add occupants through entry points of the group ``anyolo.<kind>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from anyolo.errors import UnknownName

T = TypeVar("T")


class Registry(Generic[T]):
    """``kind`` names the table in errors; ``table`` maps names, ``aliases`` other spellings, to objects.

    Names are matched without regard to case, ``-`` and ``_`` alike.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, str],
        *,
        aliases: Mapping[str, str] | None = None,
        group: str = "",
    ) -> None:
        self.kind = kind
        self._table = dict(table)
        self._aliases = dict(aliases or {})
        self._group = group
        self._plugins_read = not group

    def names(self) -> tuple[str, ...]:
        self._read_plugins()
        return tuple(self._table)

    def spellings(self) -> tuple[str, ...]:
        """Names and aliases."""
        return (*self.names(), *self._aliases)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def resolve(self, name: str) -> str:
        """The table's own spelling of ``name``; raises UnknownName with a suggestion."""
        found = self._find(name)
        if found is None:
            raise UnknownName(self.kind, name, self.spellings())
        return found

    def get(self, name: str) -> T:
        """Import and return the object behind ``name``."""
        module, _, attribute = self._table[self.resolve(name)].partition(":")
        return cast(T, getattr(import_module(module), attribute))

    def _find(self, name: str) -> str | None:
        self._read_plugins()
        if name in self._table:
            return name
        plain = _plain(name)
        for own in self._table:
            if _plain(own) == plain:
                return own
        for alias, own in self._aliases.items():
            if _plain(alias) == plain:
                return own
        return None

    def _read_plugins(self) -> None:
        if not self._plugins_read:
            self._plugins_read = True
            for entry in entry_points(group=self._group):
                self._table.setdefault(entry.name, entry.value)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
