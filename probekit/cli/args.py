"""The argument tree. dtrace(1)'s letters mean what they mean there; words are ours."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ("UsageError", "parse")

_DESCRIPTION = """\
DTrace for a virtual machine that you do not have to change: attach to a running
QEMU guest through its gdb stub, trace its kernel with D, leave it as it was."""

_EXAMPLES = """\
examples:
  probekit -r unix:/run/vm/gdb.sock -n 'fbt::sys_*:entry { @[probefunc] = count(); }'
        count system calls by function until Ctrl-C
  probekit -r localhost:1234 -n 'fbt::vfs_read:return { @[execname] = quantize(arg1); }'
        sizes of reads, by program
  probekit -r localhost:1234 -n 'fbt::tcp_*:' -n 'tick-5s { exit(0); }'
        a line for every TCP function that is entered or left, for five seconds
  probekit -r localhost:1234 -l -n 'fbt::*read*:entry'
        which probes there are
  probekit recover -r localhost:1234
        put a guest right after a probekit that was killed

targets (-r):
  HOST:PORT, tcp:HOST:PORT   QEMU's -s or -gdb tcp::PORT
  unix:PATH                  a gdb stub on a unix socket
  gdb:TARGET-STRING          through gdb, whatever its `target remote` takes
  none                       no guest: BEGIN, END and tick-N only

exit status: 0, or what exit() was given; 1 on errors; 2 on a wrong command line.
Environment: PROBEKIT_TARGET stands in for -r; DTRACE_OPT_name=value for -x."""

_RECOVER = """\
Restore a guest that a killed probekit left changed: every site gets its original
bytes back, borrowed tasks their registers, and probekit's memory is freed. On a
guest that is clean it says so. Safe to run at any time, and again."""


class UsageError(Exception):
    """A command line that makes no sense. ``usage``: the one line that helps."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.format_usage())


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the guest")
    group.add_argument("-r", "--remote", metavar="TARGET", help="the guest's gdb stub; see targets below")
    group.add_argument("--symbols", metavar="FILE", help="an ELF with symbols, a System.map or a saved kallsyms")
    group.add_argument(
        "--ram", metavar="FILE", help="the guest's shared RAM file (found by itself on this host; `none`: do without)"
    )
    group.add_argument(
        "--qmp", metavar="PATH", help="QEMU's QMP socket, to hear at once when the guest reboots or dies"
    )
    group.add_argument("--no-cache", action="store_true", help="read symbols and types from the guest anew")
    group.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=5.0, help="limit for connecting (default: 5)"
    )


def _trace_parser() -> _Parser:
    parser = _Parser(
        prog="probekit",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="probekit -r TARGET [-leqvVZ] [-n PROBE[{CLAUSE}]] [-s FILE] [-x OPT[=VAL]] [-o FILE] [ARG...]\n"
        "       probekit recover -r TARGET",
        allow_abbrev=False,
    )
    program = parser.add_argument_group("the program")
    program.add_argument("-n", dest="names", action="append", default=[], metavar="PROBE", help="a probe, or a clause")
    program.add_argument("-s", dest="scripts", action="append", default=[], metavar="FILE", help="a D script")
    program.add_argument("-x", dest="options", action="append", default=[], metavar="OPT[=VAL]", help="set an option")
    program.add_argument("-Z", dest="zdefs", action="store_true", help="allow probe descriptions that match nothing")
    program.add_argument(
        "--engine", choices=("guest", "stop"), default="guest", help="run clauses in the guest, or stop it each time"
    )
    program.add_argument("args", nargs="*", metavar="ARG", help="what $1, $2 ... stand for")
    what = parser.add_argument_group("what to do")
    what.add_argument("-l", dest="list", action="store_true", help="list matching probes instead of enabling them")
    what.add_argument("-e", dest="compile_only", action="store_true", help="end when the program is compiled")
    what.add_argument("-V", dest="version", action="store_true", help="print the version")
    output = parser.add_argument_group("output")
    output.add_argument("-q", dest="quiet", action="store_true", help="print only what the program prints")
    output.add_argument(
        "-v", dest="verbose", action="store_true", help="more: refused probes with reasons, what things took"
    )
    output.add_argument("-o", dest="output", metavar="FILE", help="append the output to a file")
    output.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_target(parser)
    return parser


def _recover_parser() -> _Parser:
    parser = _Parser(
        prog="probekit recover",
        description=_RECOVER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="the result as a JSON object")
    parser.add_argument("-v", dest="verbose", action="store_true", help="say what is going on")
    _add_target(parser)
    return parser


def parse(argv: list[str]) -> tuple[str, argparse.Namespace]:
    """The command, ``trace`` or ``recover``, and its arguments. Raises :class:`UsageError`."""
    if argv[:1] == ["recover"]:
        return "recover", _recover_parser().parse_args(argv[1:])
    if not argv:
        raise UsageError("nothing to do", _trace_parser().format_usage())
    return "trace", _trace_parser().parse_intermixed_args(argv)
