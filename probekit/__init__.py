"""probekit: DTrace for a virtual machine that you do not have to change.

    import probekit

    with probekit.attach("unix:/run/vm/gdb.sock") as guest:
        with guest.trace("fbt::sys_*:entry { @[probefunc] = count(); }") as trace:
            for event in trace.events(seconds=10):
                print(event)
            for aggregation in trace.aggregations():
                print(aggregation.name, {row.key: row.value for row in aggregation.rows})

Leaving a ``with`` restores the guest. Events are the dataclasses of
:mod:`probekit.consumer.events`; errors are :mod:`probekit.errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probekit.session.api import Guest, attach

__all__ = ("Guest", "attach")


def __getattr__(name: str) -> object:
    # The command line imports this package before it knows what it needs.
    if name in __all__:
        from probekit.session import api

        return getattr(api, name)
    raise AttributeError(f"module 'probekit' has no attribute {name!r}")
