"""Argument types of probes without a guest: those of the host have none, those of a guest are not known."""

from __future__ import annotations

from probekit.cli.prototypes import argument_types
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe


def test_without_a_guest_only_the_hosts_probes_have_known_arguments() -> None:
    types = argument_types(None)
    assert types(Probe(1, ProbeName("dtrace", "", "", "BEGIN"), "begin")) == ()
    assert types(Probe(2, ProbeName("fbt", "vmlinux", "f", "entry"), "entry")) is None
