"""Publish the provider ``kinst``: any instruction of a kernel function, like FreeBSD's provider of that name.

``kinst:MODULE:FUNCTION:OFFSET`` fires before the instruction at that byte offset
(decimal) of the function is executed; an empty or glob OFFSET means every one.
``arg0`` .. ``arg5`` are the registers rdi, rsi, rdx, rcx, r8 and r9 as they are then.

A kernel has millions of instructions, so a probe exists once a description names the
provider and the function: ``-l`` alone does not list them. A probe also exists for an offset where no
instruction starts, and is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from probekit.errors import ProbekitError
from probekit.isa.decode import instruction_starts
from probekit.probe.names import ProbeDescription, ProbeName, glob_regex, is_glob
from probekit.providers.api import Probe
from probekit.providers.function_table import FunctionTable, matching_functions

__all__ = ("MAX_PROBES", "KinstProvider")

MAX_PROBES = 200_000
"""The most instructions that one description may name."""

_OFFSET_DIGITS = 9


class KinstProvider:
    """Publishes a probe for each instruction that a description names."""

    name = "kinst"

    def __init__(
        self,
        table: FunctionTable,
        read_code: Callable[[Sequence[tuple[int, int]]], list[bytes | None]],
        ids: Iterator[int],
    ) -> None:
        """Publish instructions of the functions in ``table``.

        ``read_code``: reads live text at ``(addr, size)`` ranges; ``ids``: gives the IDs of new probes.
        """
        self._table = table
        self._read_code = read_code
        self._ids = ids
        self._probes: dict[int, Probe] = {}
        self._made: dict[tuple[int, int], Probe] = {}

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order.

        Raises :class:`ProbekitError` for a description that names more than :data:`MAX_PROBES` instructions.
        """
        if description.provider != self.name or not description.function:
            return
        indexes = list(matching_functions(self._table, description))
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
                    if found > MAX_PROBES:
                        raise ProbekitError(
                            f"probe description {description} names more than {MAX_PROBES:,} instructions",
                            hint="name fewer functions",
                        )
                    yield self._probe(index, addr - start)

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None. Only probes that a description has named are found."""
        return self._probes.get(probe_id)

    def _probe(self, index: int, offset: int) -> Probe:
        probe = self._made.get((index, offset))
        if probe is None:
            function = self._table[index]
            name = ProbeName(self.name, function.module, function.name, str(offset))
            probe = Probe(next(self._ids), name, "instruction", function, offset=offset)
            self._made[index, offset] = self._probes[probe.id] = probe
        return probe
