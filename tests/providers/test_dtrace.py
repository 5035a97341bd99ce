"""The probes that the host fires around everything else."""

from __future__ import annotations

import pytest

from probekit.probe.names import ProbeDescription
from probekit.providers.dtrace import BEGIN, END, ERROR, DtraceProvider


@pytest.mark.parametrize(
    ("text", "ids"),
    [("BEGIN", [1]), ("dtrace:::END", [2]), ("dtrace:::", [1, 2, 3]), ("fbt:::BEGIN", []), ("E*", [2, 3])],
)
def test_a_description_names_some_of_three_probes(text: str, ids: list[int]) -> None:
    assert [probe.id for probe in DtraceProvider().match(ProbeDescription.parse(text))] == ids


def test_a_number_names_its_probe_and_no_other() -> None:
    assert [DtraceProvider().by_id(n) for n in range(5)] == [None, BEGIN, END, ERROR, None]
