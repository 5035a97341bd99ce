"""Publish the provider ``fbt``: the entry and the return of every kernel function.

``fbt:MODULE:FUNCTION:entry`` has the function's arguments as ``arg0`` .. ``arg9``;
``fbt:MODULE:FUNCTION:return`` has the offset of the exit as ``arg0`` and the
returned value as ``arg1``. There is one probe for each *address*: its other names
(aliases) match as well, and ``probefunc`` is the kernel's first name. On
kernels whose system calls are ``__x64_sys_NAME``, ``sys_NAME`` names them too.

IDs follow the address order, so they do not change while a kernel runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.probe.names import ProbeDescription, ProbeName, glob_regex
from probekit.providers.api import Probe, ProbeKind
from probekit.providers.function_table import FunctionTable, matching_functions

__all__ = ("FbtProvider",)

_KINDS: tuple[ProbeKind, ...] = ("entry", "return")


class FbtProvider:
    """Publishes entry and return probes of a table of functions."""

    name = "fbt"

    def __init__(self, table: FunctionTable, first_id: int) -> None:
        """Publish the functions of ``table``; ``first_id``: the ID of the first one's entry."""
        self._table = table
        self._first_id = first_id

    @property
    def end_id(self) -> int:
        """The ID after the last one of this provider."""
        return self._first_id + 2 * len(self._table)

    @property
    def functions(self) -> FunctionTable:
        """All functions by address."""
        return self._table

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        if description.probe_id is not None:
            return
        kinds = [(kind_index, kind) for kind_index, kind in enumerate(_KINDS) if _fits(description.name, kind)]
        if not kinds or not _fits(description.provider, self.name):
            return
        # Written out for speed: a description may name all 40,000 functions.
        for index in matching_functions(self._table, description):
            function = self._table[index]
            first_id = self._first_id + 2 * index
            for kind_index, kind in kinds:
                name = ProbeName(self.name, function.module, function.name, kind)
                yield Probe(first_id + kind_index, name, kind, function)

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        index, kind_index = divmod(probe_id - self._first_id, 2)
        if not 0 <= index < len(self._table):
            return None
        function, kind = self._table[index], _KINDS[kind_index]
        return Probe(probe_id, ProbeName(self.name, function.module, function.name, kind), kind, function)


def _fits(pattern: str, text: str) -> bool:
    return not pattern or glob_regex(pattern).fullmatch(text) is not None
