"""``python -m tests.bench``: what a probe costs, beside bpftrace and gdb in the same guest.

Everything is measured in one guest, in rounds that take turns, so that a slow
minute of the machine falls on all alike. A figure is the median of its rounds; in
a round, the cost of a call is that of the least disturbed of several loops. Only
ratios carry over to another machine. Nothing here is a test: no time is asserted.

- ``guestload``  what the guest does while it is measured
- ``tracers``    probekit, bpftrace and gdb, started, awaited and ended
- ``pauses``     how long the guest stood still, as QEMU's own events tell
- ``firing``     nanoseconds that one firing adds
- ``stops``      firings a second where each one stops the guest
- ``enabling``   time to enable and disable few and all functions
- ``report``     tables, and the targets they are held against
"""
