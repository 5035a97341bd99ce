"""The one table of options."""

from __future__ import annotations

import pytest

from probekit.session.options import OPTIONS, OptionError, Options, apply_options, environment_options, set_option

LANGUAGE = """
aggsize aggrate bufsize bufpolicy bufresize cleanrate cpu destructive dynvarsize flowindent grabanon jstackframes
jstackstrsize maxframes nspec specsize stackframes stackindent statusrate strsize switchrate quiet quietresize rawbytes
scratchsize ustackframes noresolve printsize temporal aggsortkey aggsortkeypos aggsortpos aggsortrev pcapsize lockmem
amin argref core cpp cppargs cpphdrs cpppath ctypes ctfpath debug defaultargs define undef incdir disasm droptags dtypes
empty errtags evaltime iregs tregs kdefs knodefs udefs unodefs late lazyload ldpath libdir syslibdir linkmode linktype
linknommap aggpercpu sysslice nolibs pgmax preallocate pspec stdc strip tree verbose version zdefs encoding
""".split()


def test_every_option_of_d_is_known() -> None:
    assert not set(LANGUAGE) - set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("bufsize", "4m", "bufsize", 4 << 20),
        ("aggsize", "0x10k", "aggsize", 16 << 10),
        ("strsize", "010", "strsize", 8),
        ("switchrate", "10hz", "switchrate_ns", 100_000_000),
        ("switchrate", "4", "switchrate_ns", 250_000_000),
        ("switchrate", "100msec", "switchrate_ns", 100_000_000),
        ("quiet", "", "quiet", True),
        ("quiet", "Disable", "quiet", False),
        ("nspec", "3", "nspec", 3),
        ("aggsortkeypos", "2", "aggsortkeypos", 2),
        ("libdir", "/lib/d", "libdir", ("/lib/d",)),
    ],
)
def test_values(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(set_option(Options(), name, value), field) == expected


@pytest.mark.parametrize(
    ("source", "name", "value", "message"),
    [
        ("command", "bogus", "1", "failed to set -x bogus: Invalid option name"),
        ("command", "bufsize", "4q", "failed to set -x bufsize: Invalid value for specified option"),
        ("command", "cpu", "99", "failed to set -x cpu: Invalid value for specified option"),
        ("command", "iregs", "3", "failed to set -x iregs: Invalid value for specified option"),
        ("command", "version", "1.0", "failed to set -x version: Invalid value for specified option"),
        ("program", "version", "1.6", "failed to set option 'version' to '1.6': Invalid value for specified option"),
        ("command", "bufpolicy", "none", "failed to set -x bufpolicy: Invalid value for specified option"),
        ("program", "bogus", "", "failed to set option 'bogus': Invalid option name"),
        ("program", "cpp", "", "failed to set option 'cpp': Option cannot be used from within a D program"),
        ("runtime", "nspec", "2", "failed to set option 'nspec' to '2': Option cannot be set while tracing is active"),
    ],
)
def test_what_is_refused_and_how(source: str, name: str, value: str, message: str) -> None:
    with pytest.raises(OptionError) as refused:
        set_option(Options(), name, value, source)  # type: ignore[arg-type]
    assert refused.value.message == message


@pytest.mark.parametrize(("name", "value"), [("cpu", "0"), ("iregs", "8"), ("iregs", "16"), ("version", "2.0")])
def test_values_that_can_be_met_are_accepted(name: str, value: str) -> None:
    assert set_option(Options(), name, value) == Options()


def test_a_misspelt_option_is_recognized() -> None:
    with pytest.raises(OptionError) as refused:
        set_option(Options(), "bufsiz", "4m")
    assert refused.value.hint == "did you mean bufsize?"


def test_later_settings_win_and_lists_grow() -> None:
    options = apply_options(Options(), [("quiet", ""), ("quiet", "no"), ("define", "A"), ("define", "B=1")])
    assert not options.quiet
    assert options.define == ("A", "B=1")


def test_the_environment() -> None:
    environ = {"DTRACE_OPT_quiet": "", "DTRACE_OPT_NSPEC": "2", "DTRACE_OPT_bogus": "1", "HOME": "/"}
    assert environment_options(environ) == [("quiet", ""), ("nspec", "2")]
