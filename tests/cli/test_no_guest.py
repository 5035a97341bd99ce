"""The command line where no guest is needed: BEGIN, END, ticks, options, errors of the script and of the user."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from probekit.cli.main import main
from tests.live.tool import Probekit, Result

Make = Callable[[str], Probekit]
Here = Callable[..., Result]


@pytest.fixture
def none(tool: Make) -> Probekit:
    return tool("none")


@pytest.fixture
def here(homes: object, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """The command line in this process, which is quicker where nothing is traced. No QEMU runs on this host."""
    monkeypatch.setattr("psutil.process_iter", lambda: iter(()))

    def run(*args: str) -> Result:
        capfd.readouterr()
        status = main(list(args))
        return Result(status, *capfd.readouterr())

    return run


def _names(*clauses: str) -> list[str]:
    return [word for clause in clauses for word in ("-n", clause)]


# -- what it does ----------------------------------------------------------------------------------------------


def test_begin_comes_first_then_ticks_then_end(none: Probekit) -> None:
    done = none.run(
        "--json",
        *_names(
            'BEGIN { x = 10; trace("begin"); }',
            "tick-50ms { x++; trace(x); }",
            "tick-50ms /x == 13/ { exit(x); }",
            "END { trace(x); }",
        ),
    )
    assert done.status == 13 and done.stderr == ""
    fired = [(e["probe"]["name"], e["data"]) for e in done.fired() if e["data"]]
    assert fired == [("BEGIN", ["begin"]), *(("tick-50ms", [n]) for n in (11, 12, 13)), ("END", [13])]


def test_begin_may_exit_and_end_still_runs(here: Here) -> None:
    done = here(
        "-r", "none", "-q", *_names('BEGIN { printf("a\\n"); exit(7); printf("b\\n"); }', 'END { printf("c\\n"); }')
    )
    assert (done.status, done.stdout.split()) == (7, ["a", "b", "c"])


@pytest.mark.parametrize(("status", "seen"), [(0, 0), (1, 1), (255, 255)])
def test_each_end_has_its_exit_status(here: Here, status: int, seen: int) -> None:
    assert here("-r", "none", "-q", *_names(f"BEGIN {{ exit({status}); }}")).status == seen


def test_a_script_file_takes_arguments_and_prints_aggregations(none: Probekit, tmp_path: Path) -> None:
    script = tmp_path / "a script.d"
    script.write_text('BEGIN { @n[$1, "x"] = sum($2); @q = quantize($2); exit(0); }\n')
    done = none.run("--json", "-s", str(script), "3", "64")
    assert done.status == 0, done.stderr
    assert done.table("n") == {(3, "x"): 64}
    assert done.table("q") == {(): [{"value": 32, "count": 0}, {"value": 64, "count": 1}, {"value": 128, "count": 0}]}


def test_quiet_prints_only_what_the_script_prints(none: Probekit) -> None:
    loud = none.run(*_names('BEGIN { printf("here\\n"); exit(0); }'))
    quiet = none.run("-q", *_names('BEGIN { printf("here\\n"); exit(0); }'))
    assert (quiet.stdout.rstrip("\n"), quiet.stderr) == ("here", "")
    assert "FUNCTION:NAME" in loud.stdout and "matched 1 probe" in loud.stderr


def test_output_file_is_appended_to(none: Probekit, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("before\n")
    for word in ("one", "two"):
        done = none.run("-q", "-o", str(out), *_names(f'BEGIN {{ printf("{word}\\n"); exit(0); }}'))
        assert (done.status, done.stdout) == (0, "")
    assert out.read_text().split() == ["before", "one", "two"]


def test_compiling_only_and_the_version_need_no_run(tool: Make) -> None:
    anywhere = tool("unix:/nobody/is/here")
    assert anywhere.run("-e", *_names("BEGIN { exit(0); }"), target=False).status == 0
    version = anywhere.run("-V", target=False)
    assert version.status == 0 and version.stdout.startswith("probekit: version ")


def test_without_a_guest_the_hosts_probes_are_listed(none: Probekit) -> None:
    done = none.run("-l", "--json")
    names = [entry["probe"]["name"] for entry in done.of("listing")]
    assert done.status == 0 and names[:4] == ["BEGIN", "END", "ERROR", "profile-97"] and names[-1] == "tick-5000"
    assert [e["probe"]["name"] for e in none.run("-l", "--json", "-n", "tick-3s").of("listing")] == ["tick-3s"]


def test_options_come_from_the_environment_the_script_and_the_command_line(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = _names('BEGIN { printf("x\\n"); exit(0); }')
    for where in (["-x", "quiet"], ["-x", "quiet=yes"], ["-q"]):
        assert here("-r", "none", *where, *probe).stderr == ""
    assert here("-r", "none", *_names('#pragma D option quiet\nBEGIN { printf("x\\n"); exit(0); }')).stderr == ""
    monkeypatch.setenv("DTRACE_OPT_QUIET", "")
    assert here("-r", "none", *probe).stderr == ""
    monkeypatch.setenv("DTRACE_OPT_QUIET", "no")
    assert here("-r", "none", *probe).stderr != ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_end_and_aggregations(none: Probekit, number: int) -> None:
    running = none.live("tick-20ms { @n = count(); }", 'END { trace("end"); }')
    done = running.finish(number)
    assert done.status == 0
    assert [e["data"] for e in done.fired("END")] == [["end"]]
    assert done.table("n")[()] >= 1


def test_the_environment_names_the_target(none: Probekit) -> None:
    done = none.run(*_names("BEGIN { exit(4); }"), target=False, env={"PROBEKIT_TARGET": "none"})
    assert done.status == 4


# -- what it refuses -------------------------------------------------------------------------------------------

BAD_SCRIPTS = {
    # tag: (script, line, the text under the caret)
    "D_AGG_REDEF": ("BEGIN { @x[1] = count(); @x[1] = sum(2); }", 1, "@x"),
    "D_IDENT_UNDEF": ("BEGIN { trace(nosuch); }", 1, "nosuch"),
    "D_SYNTAX": ("BEGIN {\n  trace(1;\n}", 2, ";"),
    "D_PRINTF_ARG_FMT": ("BEGIN { printf(1); }", 1, "1"),
    "D_PRINTF_ARG_PROTO": ('BEGIN { printf("%d"); }', 1, ""),
    "D_FUNC_UNDEF": ("BEGIN { nosuch(); }", 1, "nosuch"),
}


@pytest.mark.parametrize("tag", BAD_SCRIPTS)
@pytest.mark.parametrize("before", [[], ["BEGIN", "BEGIN { y = 1; }"]], ids=["alone", "behind others"])
def test_script_errors_say_where_and_which(here: Here, tag: str, before: list[str]) -> None:
    script, line, marked = BAD_SCRIPTS[tag]
    done = here("-r", "none", *_names(*before, script))
    assert done.status == 1
    said = done.paragraph().splitlines()
    assert any(f"[{tag}]" in text for text in said)
    # The line of the script and the caret under the place; line and column before them say the same.
    (at,) = [number for number, text in enumerate(said) if text.strip(" |") and not text.strip(" |^")]
    column = said[at].index("^")
    gutter, _, shown = said[at - 1].partition(" | ")
    assert int(gutter) == line and shown == script.splitlines()[line - 1]
    start = column - len(gutter) - 3
    assert shown[start:].startswith(marked)
    assert f"{line}:{start + 1}: " in "\n".join(said[: at - 1])


def test_error_tags_are_dtraces_own_form(here: Here) -> None:
    done = here("-r", "none", "-x", "errtags", *_names("BEGIN { trace(nosuch); }"))
    assert "[D_IDENT_UNDEF] line 1: nosuch is not defined" in done.paragraph()


USAGE = {
    "nothing": ([], "nothing to do"),
    "unknown option": (["--nosuch"], "--nosuch"),
    "unknown letter": (["-y"], "-y"),
    "bad engine": (["--engine", "magic", "-n", "BEGIN"], "magic"),
    "no program": (["-r", "none"], "-n or -s"),
    "no guest": (["-n", "BEGIN"], "-r"),
    "recover nothing": (["recover"], "-r"),
    "recover none": (["recover", "-r", "none"], "-r"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_command_line_that_makes_no_sense_is_refused(here: Here, name: str) -> None:
    args, word = USAGE[name]
    done = here(*args)
    assert done.status == 2
    assert word in done.paragraph() and "Try `probekit --help`" in done.stderr


REFUSED = {
    "unknown -x": (["-x", "nosuch=1", "-n", "BEGIN"], "nosuch"),
    "bad -x value": (["-x", "bufsize=many", "-n", "BEGIN"], "bufsize"),
    "no such script": (["-s", "/no/such/file.d"], "/no/such/file.d"),
    "bad target": (["-r", "nonsense", "-n", "BEGIN"], "nonsense"),
    "bad port": (["-r", "localhost:99999", "-n", "BEGIN"], "99999"),
    "unwritable output": (["-o", "/no/such/dir/x", "-r", "none", "-n", "BEGIN"], "/no/such/dir/x"),
    "matches nothing": (["-r", "none", "-n", "fbt::nosuch:entry"], "fbt::nosuch:entry"),
    "no macro argument": (["-r", "none", "-n", "BEGIN { trace($1); }"], "$1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_paragraph(here: Here, name: str) -> None:
    args, word = REFUSED[name]
    done = here(*args)
    assert done.status == 1
    assert word in done.paragraph()


def test_nothing_matches_is_fine_when_asked_for(none: Probekit) -> None:
    done = none.run("-Z", *_names("fbt::nosuch:entry { exit(1); }", "BEGIN { exit(3); }"))
    assert done.status == 3
    assert "matched 0 probes" in done.stderr


def test_a_reader_that_goes_away_is_no_error(none: Probekit) -> None:
    ours, its = os.pipe()
    running = none.start("-q", *_names('tick-5ms { printf("line\\n"); }'), stdout=its)
    os.close(its)
    os.read(ours, 10)
    os.close(ours)
    done = running.finish()
    assert (done.status, done.said) == (0, [])
