"""What an engine does not have is refused by name, with the reason, and before anything is touched."""

from __future__ import annotations

import pytest

from probekit.enabling.ecb import Ecb, Matching
from probekit.errors import UnsupportedError
from probekit.ir.build import compile_program
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe
from probekit.session.engine_support import refuse_for_guest

ENTRY = Probe(1, ProbeName("fbt", "vmlinux", "f", "entry"), "entry")
PROFILE = Probe(2, ProbeName("profile", "", "", "profile-97"), "tick", period_ns=10_000_000)
TICK = Probe(3, ProbeName("profile", "", "", "tick-97"), "tick", period_ns=10_000_000)
BEGIN = Probe(4, ProbeName("dtrace", "", "", "BEGIN"), "begin")


def refused(body: str, engine: str, probe: Probe = ENTRY) -> UnsupportedError | None:
    program = compile_program(f"BEGIN {{ {body} }}")
    try:
        refuse_for_guest(program, Matching((Ecb(probe, (0,)),), ()), engine)
    except UnsupportedError as error:
        return error
    return None


@pytest.mark.parametrize("engine", ["guest", "stop"])
def test_nowhere_in_a_guest(engine: str) -> None:
    error = refused("breakpoint();", engine)
    assert error is not None and (error.feature, error.hint) == ("breakpoint", "")
    assert error.message.startswith("line 1: no breakpoint() in a guest: ") and "one client" in error.message


COPIES = ("copyout((void *)arg0, arg1, 8);", 'copyoutstr("x", arg1, 8);')


@pytest.mark.parametrize(
    ("body", "feature"),
    [
        *((f"{name}();", name) for name in ("panic", "stop")),
        *((f"{name}(9);", name) for name in ("chill", "raise")),
        *zip(COPIES, ("copyout", "copyoutstr"), strict=True),
    ],
)
def test_only_as_code(body: str, feature: str) -> None:
    assert refused(body, "guest") is None
    error = refused(body, "stop")
    assert error is not None and error.feature == feature and "--engine guest" in error.hint


@pytest.mark.parametrize("engine", ["guest", "stop"])
@pytest.mark.parametrize("what", ["copyinstr(arg1)", "execargs", "vtimestamp", "ipl", "d_path((void *)arg0)"])
def test_what_a_sample_cannot_have_is_refused(what: str, engine: str) -> None:
    """The guest stands still then: what only code in it could tell is not made up."""
    error = refused(f"trace({what});", engine, PROFILE)
    assert error is not None and what.split("(")[0] in error.feature
    assert refused(f"trace({what});", engine, BEGIN) is None


@pytest.mark.parametrize("engine", ["guest", "stop"])
@pytest.mark.parametrize("body", ["raise(9);", "stop();", "breakpoint();", "chill(1);", "panic();", *COPIES])
def test_samples_are_taken_of_a_guest_that_stands_still(body: str, engine: str) -> None:
    assert refused(body, engine, PROFILE) is not None
    assert refused(body, engine, TICK) is None
    assert refused(body, engine, BEGIN) is None


@pytest.mark.parametrize("engine", ["guest", "stop"])
@pytest.mark.parametrize("body", ['system("true");', 'freopen("/tmp/x");', "ftruncate();", 'setopt("quiet");'])
def test_what_the_host_does(body: str, engine: str) -> None:
    assert refused(body, engine) is None


@pytest.mark.parametrize(
    ("body", "what", "guest", "stop"),
    [
        ("trace(copyinstr(arg0));", "the subroutine copyinstr()", True, False),
        ("trace(vtimestamp);", "the built-in variable vtimestamp", True, False),
        ("trace(d_path((void *)arg0));", "the subroutine d_path()", True, False),
        ("trace(cwd); trace(root);", "", True, True),
        ("trace(walltimestamp);", "", True, True),
        ("trace(execargs);", "the built-in variable execargs", True, False),
        ("trace(mutex_owned((void *)arg0));", "the subroutine mutex_owned()", False, False),
        ("trace(ipl);", "the built-in variable ipl", False, False),
        ('trace(json("[1]", "[0]"));', "", True, True),
    ],
)
def test_the_hint_names_the_engine_that_has_it(body: str, what: str, guest: bool, stop: bool) -> None:
    for engine, has, other in (("guest", guest, stop), ("stop", stop, guest)):
        error = refused(body, engine)
        assert (error is None) == has
        if error is not None:
            assert what in error.message and error.feature == what
            assert bool(error.hint) == other
