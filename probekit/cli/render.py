"""Renders the events of a run to the output, in the form that the command line asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from probekit.cli.args import Arguments
from probekit.cli.progress import Progress
from probekit.cli.prototypes import ArgumentTypes
from probekit.cli.sources import Compiled
from probekit.consumer.bulk import TextSink
from probekit.consumer.events import Attached, Event, Message, ProbeFired
from probekit.errors import GuestGone, ProbekitError, TargetLost
from probekit.ir.ops import Clause
from probekit.output.api import Renderer
from probekit.output.effects import HostEffects
from probekit.output.streams import OutputStream, process_output
from probekit.session.options import Options
from probekit.session.run import Run

__all__ = ("RunRenderer", "open_output")

_MAX_NAMED = 10  # up to so many refused probes are named; of more, only the number for each reason is shown


@contextmanager
def open_output(path: str | None) -> Iterator[OutputStream]:
    """Open the output: the file of ``-o``, to which output is appended, or standard output.

    Leaving it writes everything that was put off, so the guest must be released by then. Raises
    :class:`ProbekitError` when it cannot be opened or when output is lost, BrokenPipeError when its reader has gone.
    """
    output = process_output()
    if path is None:
        output.check_standard_output()
        out = output.out
    else:
        out = _opened(path)
    try:
        yield out
    except Exception as error:
        try:
            output.check()
        except ProbekitError as lost:
            error.add_note(lost.message)
        except BrokenPipeError:
            pass
        raise
    output.check()


def _opened(path: str) -> OutputStream:
    try:
        return process_output().open(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ProbekitError(f"failed to open output file '{path}': {reason}") from error


class _SinkAfterProgress:
    """Passes texts to a renderer, and clears the progress line on the terminal first."""

    def __init__(self, renderer: TextSink, progress: Progress) -> None:
        self._renderer = renderer
        self._progress = progress

    @property
    def takes_text(self) -> bool:
        return self._renderer.takes_text

    def printed(self, text: str) -> None:
        self._progress.done()
        self._renderer.printed(text)


class RunRenderer:
    """Renders one run."""

    def __init__(
        self,
        run: Run,
        compiled: Compiled,
        arguments: Arguments,
        options: Options,
        progress: Progress,
        types: ArgumentTypes,
    ) -> None:
        """Prepare. ``types``: finds the argument types of probes, for ``-v``."""
        self._run = run
        self._compiled = compiled
        self._arguments = arguments
        self._options = options
        self._progress = progress
        self._types = types

    def render(self, stack: ExitStack) -> int:
        """Run the program and render everything. Returns the exit status.

        ``stack``: closes the output, once the guest is released. When output is lost, the run ends.
        """
        output = process_output()
        out = stack.enter_context(open_output(self._arguments.output))
        effects = HostEffects(out, hurry=lambda: self._run.must_restore, waiting=self._run.send_heartbeat)
        stack.callback(effects.close)
        renderer = self._renderer(out, effects)
        renderer.header()
        sink = _SinkAfterProgress(renderer, self._progress) if isinstance(renderer, TextSink) else None
        self._run.state.set_output(idle=renderer.flush, sink=sink, lost=lambda: output.failed)
        lost: ProbekitError | None = None
        try:
            for event in self._run.events():
                self._event(renderer, event, out)
        except (GuestGone, TargetLost) as error:
            if not self._run.ended:
                raise
            lost = error
        self._progress.done()
        renderer.aggregations(self._run.unprinted())
        renderer.close()
        if lost is not None:
            raise lost
        return self._run.status & 0xFF

    def _event(self, renderer: Renderer, event: Event, out: OutputStream) -> None:
        self._progress.done()
        if isinstance(event, Attached):
            self._announce(renderer, out)
        else:
            renderer.event(event)
        if not isinstance(event, ProbeFired):
            renderer.flush()  # firings are many, so they are flushed only before the next wait

    def _renderer(self, out: OutputStream, effects: HostEffects) -> Renderer:
        if self._arguments.json:
            from probekit.output.json_lines import JsonRenderer

            return JsonRenderer(out, effects=effects)
        options = self._options
        if options.oformat == "json":
            from probekit.output.json_document import JsonDocument

            return JsonDocument(out, effects=effects)
        from probekit.output.api import TextStyle
        from probekit.output.text import TextRenderer

        style = TextStyle(
            quiet=options.quiet,
            flow=options.flowindent,
            verbose=self._arguments.verbose,
            escape=out.isatty(),
            stack_indent=options.stackindent,
            raw_bytes=options.rawbytes,
            string_size=options.strsize,
            zoom=options.aggzoom,
            drop_tags=options.droptags,
        )
        return TextRenderer(out, process_output().messages, style, effects=effects)

    def _announce(self, renderer: Renderer, out: OutputStream) -> None:
        """Write dtrace's ``description 'x' matched N probes`` for each source. With ``-v`` also write stability."""
        verbose = self._arguments.verbose
        for event, clauses in self._matched():
            renderer.event(event)
            if verbose and not self._arguments.json and self._options.oformat == "text":
                from probekit.cli.stability import stability_text

                out.write(stability_text(event.what, clauses, self._run.matching, self._types))
        if verbose:
            for text in _refusals(self._run):
                renderer.event(Message(text))

    def _matched(self) -> Iterator[tuple[Attached, Sequence[Clause]]]:
        """Yield an event with the number of probes for each source, and the source's clauses."""
        gone = {refused.probe.id for refused in self._run.refused if not refused.partial}
        for source, clauses in self._compiled.by_source():
            # This counts as dtrace does: a probe counts once for each clause that is enabled at it.
            own = {clause.index for clause in clauses}
            matches = [(ecb.probe.id, len(own.intersection(ecb.clauses))) for ecb in self._run.matching.ecbs]
            refused = sum(times for number, times in matches if number in gone)
            total = sum(times for _, times in matches)
            yield Attached(what=source.name, probes=total - refused, refused=refused), clauses


def _refusals(run: Run) -> Iterator[str]:
    """Yield a line for each refused probe with the reason; with more than ten, the number of probes for each reason.

    ``-l -v`` lists all of them.
    """
    if len(run.refused) <= _MAX_NAMED:
        yield from (f"{refused.probe.name}: {refused.reason}" for refused in run.refused)
        return
    for reason, count in Counter(refused.reason.partition(" (")[0] for refused in run.refused).most_common():
        yield f"{count} not available: {reason}"
