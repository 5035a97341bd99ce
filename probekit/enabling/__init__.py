"""ECBs: which clauses run at which probes, made live in the guest and taken back.

A probe and the clauses enabled at it are an ECB list; a probe has one or more
*sites*, the places in guest text that are patched for it.

- ``ecb``      match descriptions to probes; the clauses of each
- ``sites``    from probes to places in live text, with the reason for each that has none
- ``facts``    what the engines need to know of the guest, gathered once
- ``data``     our data memory in the guest: activity word, globals, site table, strings, per-CPU blocks
- ``stubs``    inline increment or call of a thunk, for each site; the stubs laid out behind the shared code
- ``guest``    the guest engine: allocate, write, patch, restore, free
- ``blocks``   its data memory, read: records, counters, aggregations, globals
- ``stop``     the stop engine: breakpoints through the stub, clauses evaluated on the host
- ``host``     clauses that the host fires itself: BEGIN, END, tick-N
"""
