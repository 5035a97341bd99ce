"""Run a program and render its events; also ``-l`` and ``-e``."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from probekit.cli.args import UsageError
from probekit.cli.listing import list_probes
from probekit.cli.progress import Progress
from probekit.cli.sources import ScriptError, Source, compile_sources, read_sources
from probekit.consumer.events import Attached, Message
from probekit.errors import ProbekitError
from probekit.ir.ops import Program
from probekit.output.api import Renderer
from probekit.output.json_lines import JsonRenderer
from probekit.output.text import TextRenderer, TextStyle
from probekit.session.attach import Attachment, AttachOptions, attach
from probekit.session.options import Options, apply_options, environment_options
from probekit.session.run import NoMatchError, Trace
from probekit.session.signals import Interrupts
from probekit.target.connect import parse_spec

__all__ = ("attach_options", "target_of", "trace")


def target_of(arguments: argparse.Namespace) -> str:
    """The target of ``-r`` or the environment; empty when there is none. A malformed one raises."""
    spec = str(arguments.remote or os.environ.get("PROBEKIT_TARGET", ""))
    if spec:
        parse_spec(spec)
    return spec


def attach_options(arguments: argparse.Namespace, progress: Progress) -> AttachOptions:
    """What the guest group of arguments says."""
    return AttachOptions(
        symbols=Path(arguments.symbols) if arguments.symbols else None,
        cache=not arguments.no_cache,
        ram=arguments.ram,
        progress=progress,
        timeout=arguments.timeout,
        qmp=arguments.qmp,
    )


def trace(arguments: argparse.Namespace) -> int:
    """``probekit`` without a subcommand. Returns the exit status."""
    options = _options(arguments)
    sources = read_sources(arguments.names, arguments.scripts)
    if not sources and not arguments.list:
        raise UsageError("no probes: give some with -n or -s", "")
    program, counts = (
        compile_sources(sources, arguments.args, default_args=options.defaultargs, errtags=options.errtags)
        if sources
        else (None, [])
    )
    if program is not None:
        options = apply_options(options, program.options)
    spec = target_of(arguments)
    if arguments.compile_only and not spec:
        return 0
    if not spec:
        raise UsageError("no guest: name its gdb stub with -r, or use -r none", "")
    progress = Progress(verbose=arguments.verbose, silent=arguments.json)
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        guest = _attach(spec, arguments, progress, interrupts, stack)
        if arguments.list:
            progress.done()
            with _output(arguments) as out:
                list_probes(guest, program, out, verbose=arguments.verbose, json=arguments.json)
            return 0
        if program is None:
            raise AssertionError("without -l there are sources")
        try:
            run = stack.enter_context(Trace(guest, program, options, engine=arguments.engine, interrupts=interrupts))
        except NoMatchError as error:
            raise _no_match(error, program, sources, counts, errtags=options.errtags) from error
        if arguments.compile_only:
            return 0
        return _render(run, sources, counts, arguments, options, progress, stack)


def _no_match(
    error: NoMatchError, program: Program, sources: list[Source], counts: list[int], *, errtags: bool
) -> ScriptError:
    """The error in dtrace's words: which source, which line."""
    first = 0
    for source, count in zip(sources, counts, strict=True):
        if first <= error.clause < first + count:
            line = program.clauses[error.clause].line
            tag = "[D_PDESC_ZERO] " if errtags else ""
            where = f"line {line}: " if source.filename is not None or errtags else ""
            return ScriptError(f"{source.failed}: {tag}{where}{error.message}", hint=error.hint)
        first += count
    return ScriptError(error.message, hint=error.hint)


def _options(arguments: argparse.Namespace) -> Options:
    settings = [tuple(text.partition("=")[::2]) for text in arguments.options]
    options = apply_options(Options(), [*environment_options(os.environ), *((a, b) for a, b in settings)])
    changes = [("quiet", "yes")] * arguments.quiet + [("zdefs", "yes")] * arguments.zdefs
    return apply_options(options, changes)


def _attach(
    spec: str, arguments: argparse.Namespace, progress: Progress, interrupts: Interrupts, stack: ExitStack
) -> Attachment | None:
    if parse_spec(spec).kind == "none":
        return None
    guest = stack.enter_context(attach(spec, attach_options(arguments, progress)))
    guest.interrupts = interrupts
    return guest


@contextmanager
def _output(arguments: argparse.Namespace) -> Iterator[TextIO]:
    """Where output goes. What cannot be written is an error; a reader that went away stays a BrokenPipeError."""
    try:
        if arguments.output is None:
            yield sys.stdout
        else:
            with Path(arguments.output).open("a", encoding="utf-8") as out:
                yield out
    except BrokenPipeError:
        raise
    except OSError as error:
        if arguments.output is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter would try again
        raise ProbekitError(f"cannot write {arguments.output or 'the output'}: {error.strerror}") from error


def _render(
    run: Trace,
    sources: list[Source],
    counts: list[int],
    arguments: argparse.Namespace,
    options: Options,
    progress: Progress,
    stack: ExitStack,
) -> int:
    out = stack.enter_context(_output(arguments))
    escape = out.isatty()
    style = TextStyle(quiet=options.quiet, verbose=arguments.verbose, escape=escape)
    renderer: Renderer = JsonRenderer(out) if arguments.json else TextRenderer(out, sys.stderr, style)
    renderer.header()
    for event in run.events():
        progress.done()
        if isinstance(event, Attached):
            for announced in _announce(event, run, sources, counts):
                renderer.event(announced)
            if arguments.verbose:
                for text in _refusals(run):
                    renderer.event(Message(text))
        else:
            renderer.event(event)
        out.flush()
    progress.done()
    aggregations = run.aggregations()
    if aggregations:
        renderer.aggregations(aggregations)
    renderer.close()
    return run.status


_NAMED = 10  # refused probes that are named one by one; of more only how many there are for each reason


def _refusals(run: Trace) -> Iterator[str]:
    """What cannot be enabled, and why; ``-l -v`` names them all."""
    if len(run.refused) <= _NAMED:
        yield from (f"{refused.probe.name}: {refused.reason}" for refused in run.refused)
        return
    for reason, count in Counter(refused.reason.partition(" (")[0] for refused in run.refused).most_common():
        yield f"{count} not available: {reason}"


def _announce(event: Attached, run: Trace, sources: list[Source], counts: list[int]) -> Iterator[Attached]:
    """dtrace's ``description 'x' matched N probes``, a line for each source."""
    gone = {refused.probe.id for refused in run.refused if not refused.partial}
    first = 0
    for source, count in zip(sources, counts, strict=True):
        own = set(range(first, first + count))
        first += count
        # As dtrace counts: a probe once for each clause that is enabled at it.
        matches = [(ecb.probe.id, len(own.intersection(ecb.clauses))) for ecb in run.matching.ecbs]
        refused = sum(times for number, times in matches if number in gone)
        total = sum(times for _, times in matches)
        yield Attached(what=source.what, probes=total - refused, refused=refused, seconds=event.seconds)
