"""Command lines without a guest: output, messages, exit status."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from probekit.cli.main import main

from .commands import run


@pytest.fixture
def script(tmp_path: Path) -> Any:
    def write(text: str, name: str = "x.d") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_program_prints_what_it_records(capfd: Any) -> None:
    done = run(capfd, "-n", "BEGIN { trace(5); exit(3); }")
    assert done.status == 3
    assert done.err == "probekit: description 'BEGIN ' matched 1 probe\n"
    assert done.out.splitlines() == [
        "CPU     ID                    FUNCTION:NAME",
        "  0      1                           :BEGIN         5",
        "",
    ]


def test_a_script_with_arguments(capfd: Any, script: Any) -> None:
    name = script('#!/usr/sbin/dtrace -qs\nBEGIN { printf("%d %s", $1, $$2); exit(0); }\n')
    assert run(capfd, "-q", "-s", name, "5", "hello").out == "5 hello\n"
    assert "D_MACRO_UNDEF" in run(capfd, "-s", name, "5").err
    assert "D_MACRO_UNUSED" in run(capfd, "-s", name, "5", "6", "7").err
    assert run(capfd, "-q", "-x", "defaultargs", "-s", name).out == "0 \n"


def test_a_script_from_standard_input(capfd: Any, monkeypatch: Any) -> None:
    class Stdin:
        buffer = io.BytesIO(b"BEGIN { trace(7); exit(0); }")

    monkeypatch.setattr("sys.stdin", Stdin())
    assert run(capfd, "-q", "-s", "-").out == "7\n"


def test_later_programs_see_earlier_ones(capfd: Any, script: Any) -> None:
    second = script('END { printf("%d", x); printa(" %@d", @a); }')
    done = run(capfd, "-q", "-n", "BEGIN { x = 3; @a = sum(4); exit(0); }", "-s", second)
    assert done.out == "3 4\n"


def test_messages_count_each_program(capfd: Any, script: Any) -> None:
    name = script("END {}")
    err = run(capfd, "-n", "BEGIN", "-n", "tick-1s,BEGIN { exit(0); }", "-s", name).err
    assert err == (
        "probekit: description 'BEGIN' matched 1 probe\n"
        "probekit: description 'tick-1s,BEGIN ' matched 2 probes\n"
        f"probekit: script '{name}' matched 1 probe\n"
    )


def test_errors_name_their_program_and_line(capfd: Any, script: Any) -> None:
    name = script("END { trace(x); }\nBEGIN { y = 1 + ; }\n")
    done = run(capfd, "-x", "errtags", "-n", "BEGIN { x = 3; }", "-s", name)
    assert done.status == 1
    assert done.err.startswith(f"probekit: failed to compile script {name}: [D_SYNTAX] line 2: ")
    done = run(capfd, "-x", "errtags", "-n", "BEGIN { nosuch; }", "-s", name)
    assert done.err.startswith("probekit: invalid probe specifier BEGIN { nosuch; }: [D_IDENT_UNDEF] line 1: ")


def test_a_wrong_option_in_a_script_is_refused(capfd: Any, script: Any) -> None:
    name = script("BEGIN { }\n#pragma D option bogus=1\n")
    done = run(capfd, "-x", "errtags", "-s", name)
    assert (done.status, done.err) == (
        1,
        f"probekit: failed to compile script {name}: "
        "[D_PRAGMA_OPTSET] line 2: failed to set option 'bogus' to '1': Invalid option name\n",
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("-x", "bogus", "-n", "BEGIN"), "failed to set -x bogus: Invalid option name\n"),
        (("-b", "1q", "-n", "BEGIN"), "failed to set -x bufsize: Invalid value for specified option\n"),
        (("-s", "/nonexistent.d"), "failed to open /nonexistent.d: No such file or directory\n"),
        (("-i", "x", "-n", "BEGIN"), "invalid probe specifier x: not a probe ID\n"),
        (("-l", "-n", "a:b::"), "failed to match a:b::: No probe matches description\n"),
        (("-p", "x", "-n", "BEGIN"), "invalid pid: x\n"),
        (("-L", "/nonexistent", "-n", "BEGIN"), "failed to open library directory /nonexistent: No such file or "
            "directory\n"),
        (("-o", "/nonexistent/x", "-n", "BEGIN"), "failed to open output file '/nonexistent/x': No such file or "
            "directory\n"),
    ],
)  # fmt: skip
def test_each_failure_has_its_message_and_status(capfd: Any, argv: tuple[str, ...], message: str) -> None:
    done = run(capfd, *argv)
    assert (done.status, done.err) == (1, f"probekit: {message}")


def test_usage_errors_are_2(capfd: Any) -> None:
    assert run(capfd).status == 2
    assert main([]) == 2
    assert run(capfd, "-h").status == 2
    late = run(capfd, "recover")
    assert late.status == 2 and "probekit recover -r TARGET" in late.err


@pytest.mark.parametrize(
    "spec", [("-P", "dtrace"), ("-i", "1"), ("-n", "dtrace:::BEGIN"), ("-n", "1"), ("-f", "dtrace::")]
)
def test_every_way_to_name_a_probe(capfd: Any, spec: tuple[str, str]) -> None:
    out = run(capfd, "-l", *spec).out.splitlines()
    assert out[0] == "   ID   PROVIDER            MODULE                          FUNCTION NAME"
    assert out[1].split() == ["1", "dtrace", "BEGIN"]


def test_specifiers_with_clauses(capfd: Any) -> None:
    assert run(capfd, "-q", "-i", "1{ trace(1); exit(0); }").out == "1\n"
    assert run(capfd, "-q", "-P", 'dtrace /probename == "BEGIN"/ { trace(probename); exit(0); }').out == "BEGIN\n"


def test_a_probe_that_matches_nothing_is_refused(capfd: Any) -> None:
    done = run(capfd, "-x", "errtags", "-n", "fbt::f:entry")
    assert done.status == 1
    assert "[D_PDESC_ZERO] line 1: " in done.err
    assert run(capfd, "-Z", "-n", "fbt::f:entry").status == 0
    assert run(capfd, "-e", "-Z", "-n", "fbt::f:entry").out == ""


def test_destructive_actions_need_w(capfd: Any) -> None:
    program = 'BEGIN { system("echo %d", 5); exit(0); }'
    done = run(capfd, "-n", program)
    assert done.status == 1
    assert "Destructive actions not allowed" in done.err
    assert run(capfd, "-q", "-w", "-n", program).out == "5\n\n"
    assert run(capfd, "-q", "-s", "/dev/null", "-n", program).status == 1


@pytest.mark.skipif(shutil.which("cpp") is None, reason="there is no cpp")
def test_the_preprocessor_includes_and_defines_and_keeps_line_numbers(capfd: Any, script: Any, tmp_path: Path) -> None:
    (tmp_path / "seven.h").write_text("#define SEVEN 7\n")
    name = script('#!/bin/d\n#include "seven.h"\nBEGIN { trace(SEVEN + ADD); exit(0); }\n')
    assert run(capfd, "-q", "-C", "-I", str(tmp_path), "-D", "ADD=1", "-s", name).out == "8\n"
    wrong = script('#include "seven.h"\n\nBEGIN { nosuch; }\n', "wrong.d")
    done = run(capfd, "-C", "-xerrtags", "-I", str(tmp_path), "-s", wrong)
    assert "[D_IDENT_UNDEF] line 3: " in done.err
    missing = script("#include <nothing.h>\n", "missing.d")
    assert "Preprocessor failed to process input program" in run(capfd, "-C", "-s", missing).err


def test_libraries_come_first(capfd: Any, tmp_path: Path) -> None:
    (tmp_path / "a.d").write_text("inline int TEN = 10;\n")
    assert run(capfd, "-q", "-L", str(tmp_path), "-n", "BEGIN { trace(TEN); exit(0); }").out == "10\n"


def test_output_is_appended(capfd: Any, tmp_path: Path) -> None:
    file = tmp_path / "out"
    for _ in range(2):
        run(capfd, "-q", "-o", str(file), "-n", 'BEGIN { printf("x\\n"); exit(0); }')
    assert file.read_text() == "x\n\nx\n\n"


def test_a_command_that_does_not_exist_is_refused(capfd: Any) -> None:
    done = run(capfd, "-c", "/no/such/program now", "-n", "BEGIN { trace(1); }")
    assert (done.status, done.out) == (1, "") and "failed to execute /no/such/program" in done.err


def test_a_command_ends_tracing(capfd: Any) -> None:
    done = run(capfd, "-q", "-c", "echo ran", "-n", "BEGIN { trace($target != 0); } END { trace(2); }")
    assert done.status == 0
    assert "ran\n" in done.out
    assert done.out.replace("ran\n", "") == "12\n"


def test_a_process_is_the_target(capfd: Any) -> None:
    pid = os.getpid()
    assert run(capfd, "-q", "-p", str(pid), "-n", "BEGIN { trace($target); exit(0); }").out == f"{pid}\n"


def test_the_version_and_the_help(capfd: Any) -> None:
    assert run(capfd, "-V").out.startswith("probekit: version ")
    assert main(["--help"]) == 0
    assert "exit status" in capfd.readouterr().out


def test_the_compiled_program_is_shown(capfd: Any) -> None:
    assert "clause 0: :::BEGIN" in run(capfd, "-S", "-e", "-n", "BEGIN { trace(1); }").err


def test_the_stability_report(capfd: Any) -> None:
    out = run(capfd, "-v", "-n", "tick-1s,BEGIN { exit(0); }").out
    assert "Stability attributes for description tick-1s,BEGIN :\n\n\tMinimum Probe Description Attributes\n" in out
    assert "\t\tIdentifier Names: Evolving\n" in out


def test_options_from_the_environment(capfd: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("DTRACE_OPT_quiet", "")
    assert run(capfd, "-n", "BEGIN { trace(1); exit(0); }").out == "1\n"


def test_json_of_everything(capfd: Any) -> None:
    import json

    done = run(capfd, "--json", "-n", "BEGIN { @a[1] = count(); trace(2); printa(@a); exit(0); }")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[1]["data"] == [2, {"aggregation-data": [{"key": [1], "value": 1}], "aggregation-name": ["a"]}]
