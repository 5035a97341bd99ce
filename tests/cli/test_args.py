"""The command line as getopt reads it."""

from __future__ import annotations

import pytest

from probekit.cli.args import HelpWanted, UsageError, parse


def test_programs_keep_their_order_across_letters() -> None:
    _, arguments = parse(
        ["-n", "BEGIN", "-sx.d", "-P", "fbt", "-m", "ext4", "-f", "vfs_read", "-i", "7", "a", "-q", "b"]
    )
    assert arguments.programs == (
        *(("n", "BEGIN"), ("s", "x.d"), ("P", "fbt"), ("m", "ext4"), ("f", "vfs_read"), ("i", "7")),
    )
    assert arguments.args == ("a", "b")
    assert ("quiet", "") in arguments.options


def test_each_letter_sets_its_option() -> None:
    _, arguments = parse(["-b4m", "-CFHqwZ", "-D", "A=1", "-Iinc", "-UB", "-Xs", "-Llib", "-xnspec=3", "-x", "errtags"])
    assert arguments.options == (
        ("bufsize", "4m"),
        *((name, "") for name in ("cpp", "flowindent", "cpphdrs", "quiet", "destructive", "zdefs")),
        ("define", "A=1"),
        *(("incdir", "inc"), ("undef", "B"), ("stdc", "s"), ("libdir", "lib"), ("nspec", "3"), ("errtags", "")),
    )


def test_bits_are_accepted_and_mean_nothing() -> None:
    assert parse(["-32", "-n", "BEGIN"])[1].programs == (("n", "BEGIN"),)
    assert parse(["-64", "-l"])[1].list


@pytest.mark.parametrize("letter", ["-h", "-G", "-a", "-A"])
def test_what_has_no_meaning_is_refused_by_name(letter: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse([letter])
    assert str(refused.value).startswith(letter)


@pytest.mark.parametrize("argv", [[], ["-z"], ["-n"], ["--engine", "fast"], ["--timeout", "soon"], ["recover", "x"]])
def test_what_makes_no_sense_is_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        parse(argv)
    assert refused.value.usage


def test_each_command_has_its_own_help() -> None:
    with pytest.raises(HelpWanted, match="what to do with it"):
        parse(["--help"])
    with pytest.raises(HelpWanted, match="Restore a guest"):
        parse(["recover", "-h"])
