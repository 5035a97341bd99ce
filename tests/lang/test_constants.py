"""The constants of DTrace's libraries: they have the values of the kernel's headers."""

from __future__ import annotations

import errno
import os
import signal
import socket

import pytest

from probekit.ir.build import compile_program
from probekit.lang.constants import CONSTANTS


@pytest.mark.parametrize(
    ("prefix", "module"), [("O_", os), ("IPPROTO_", socket), ("SIG", signal), ("E", errno), ("CLD_", os)]
)
def test_the_c_librarys_values_are_the_same(prefix: str, module: object) -> None:
    compared = {
        n: v for n, v in CONSTANTS.items() if n.startswith(prefix) and n != "O_LARGEFILE" and hasattr(module, n)
    }
    assert len(compared) >= 6
    assert compared == {name: int(getattr(module, name)) for name in compared}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("EWOULDBLOCK", 11), ("EDEADLK", 35), ("EDEADLOCK", 35), ("EOPNOTSUPP", 95), ("ENOTSUP", 95)),
        *(("EHWPOISON", 133), ("SIGIOT", 6), ("SIGCLD", 17), ("SIGPOLL", 29), ("O_NDELAY", 0o4000)),
        *(("O_FSYNC", 0o4010000), ("TCP_STATE_LISTEN", 10), ("TH_ACK", 16), ("B_READ", 64), ("PCAP_IPOIB", 242)),
        *(("IPPROTO_OSPF", 89), ("IPPROTO_UDPLITE", 136), ("SSTOP", 4), ("PR_IDLE", 0x10000000)),
    ],
)
def test_a_constant_has_its_value(name: str, value: int) -> None:
    assert CONSTANTS[name] == value


def test_every_constant_is_a_name_of_the_language() -> None:
    compile_program("BEGIN { " + " ".join(f"x = {name};" for name in CONSTANTS) + " }")


def test_a_scripts_own_definition_wins() -> None:
    compile_program('inline string O_RDONLY = "mine"; BEGIN { x = strlen(O_RDONLY); }')
    compile_program("enum flags { TH_FIN = 7 }; struct s { char a[TH_FIN]; }; BEGIN { }")
