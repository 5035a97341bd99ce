"""Provider ``kinst``: any instruction of a kernel function, as FreeBSD's.

``kinst:MODULE:FUNCTION:OFFSET`` fires before the instruction at that byte offset
(decimal) of the function is executed; an empty or glob OFFSET means every one.
``arg0`` .. ``arg5`` are the registers rdi, rsi, rdx, rcx, r8 and r9 as they are then.

A kernel has millions of them, so they exist once a description names the
provider and the function: ``-l`` alone does not list them. An offset that is no
instruction's start exists as well, and is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from probekit.errors import ProbekitError
from probekit.isa.decode import instruction_starts
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex, is_glob
from probekit.providers.api import Probe
from probekit.providers.fbt import FunctionTable, described

__all__ = ("MOST_PROBES", "KinstProvider")

MOST_PROBES = 200_000
"""A description that names more instructions is a mistake."""

_OFFSET_DIGITS = 9


class KinstProvider:
    """``table``: the kernel's functions; ``read_code``: live text of ``(addr, size)`` ranges; ``ids``: for probes."""

    name = "kinst"

    def __init__(
        self,
        table: FunctionTable,
        read_code: Callable[[Sequence[tuple[int, int]]], list[bytes | None]],
        ids: Iterator[int],
    ) -> None:
        self._table = table
        self._read_code = read_code
        self._ids = ids
        self._probes: dict[int, Probe] = {}
        self._made: dict[tuple[int, int], Probe] = {}

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """See :class:`probekit.providers.api.Provider`. Raises :class:`ProbekitError` for more than ``MOST_PROBES``."""
        if description.provider != self.name or not description.function:
            return
        indexes = list(described(self._table, description))
        if not is_glob(description.name):
            if description.name.isdecimal() and len(description.name) <= _OFFSET_DIGITS:
                yield from (self._probe(index, int(description.name)) for index in indexes)
            return
        pattern = glob_regex(description.name or "*")
        found = 0
        code = self._read_code([(self._table[index].addr, self._table[index].size) for index in indexes])
        for index, text in zip(indexes, code, strict=True):
            start = self._table[index].addr
            for addr in instruction_starts(text or b"", start):
                if pattern.fullmatch(str(addr - start)) is not None:
                    found += 1
                    if found > MOST_PROBES:
                        raise ProbekitError(
                            f"probe description {description} names more than {MOST_PROBES:,} instructions",
                            hint="name fewer functions",
                        )
                    yield self._probe(index, addr - start)

    def by_id(self, probe_id: int) -> Probe | None:
        """See :class:`probekit.providers.api.Provider`; only those that a description has named."""
        return self._probes.get(probe_id)

    def _probe(self, index: int, offset: int) -> Probe:
        probe = self._made.get((index, offset))
        if probe is None:
            function = self._table[index]
            name = ProbeName(self.name, function.module, function.name, str(offset))
            probe = Probe(next(self._ids), name, "instruction", function, offset=offset)
            self._made[index, offset] = self._probes[probe.id] = probe
        return probe
