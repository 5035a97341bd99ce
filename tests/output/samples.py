"""Events that the tests of several renderers start from."""

from __future__ import annotations

import io

from probekit.buffers.quantize import BUCKETS, bucket_of
from probekit.consumer.events import Event, ProbeFired, ProbeIdentity, Quantize, RecordItem
from probekit.output.api import TextStyle
from probekit.output.text import TextRenderer
from probekit.probe.names import ProbeName

BEGIN = ProbeIdentity(1, ProbeName("dtrace", "", "", "BEGIN"))
READ = ProbeIdentity(51234, ProbeName("fbt", "vmlinux", "vfs_read", "entry"))


def fired(*items: RecordItem, probe: ProbeIdentity = BEGIN, cpu: int = 0) -> ProbeFired:
    """A firing with these items."""
    return ProbeFired(cpu=cpu, probe=probe, clause=0, timestamp=123, items=items)


def quantized(*values: int, increment: int = 1) -> Quantize:
    """What ``quantize()`` makes of these values."""
    buckets = [0] * BUCKETS
    for value in values:
        buckets[bucket_of(value)] += increment
    return Quantize(tuple(buckets))


def written(*events: Event, style: TextStyle | None = None) -> tuple[str, str]:
    """What the text renderer writes: output, messages."""
    out, messages = io.StringIO(), io.StringIO()
    renderer = TextRenderer(out, messages, style)
    renderer.header()
    for event in events:
        renderer.event(event)
    renderer.close()
    return out.getvalue(), messages.getvalue()
