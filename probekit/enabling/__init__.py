"""ECBs: which clauses run at which probes, made live in the guest and taken back.

A probe and the clauses enabled at it are an ECB list; a probe has one or more
*sites*, the places in guest text that are patched for it.

- ``ecb``      match descriptions to probes; the clauses of each
- ``sites``    from probes to places in live text, with the reason for each that has none
- ``facts``    what the engines need to know of the guest, gathered once
- ``reach``    the ways to the guest: memory while it stands still, pauses, guest calls, the log
- ``plan``     what an enabling will be in the guest: which blocks, how much memory of each kind
- ``data``     our data memory in the guest: activity word, globals, site table, strings, per-CPU blocks
- ``stubs``    inline increment or call of a thunk, for each site; the stubs laid out behind the shared code
- ``traps``    what stands behind the stubs for INT3 sites: handler, hash of sites, exception table
- ``staged``   sites changed while the guest runs, in stages, and the way back
- ``marks``    markers connected and switched on, and the way back
- ``hooks``    what the kernel itself calls: tracepoints registered, modules held
- ``heart``    a sign of life for the guest's watchdog
- ``registered`` what the kernel was told of, and how each kind of it is taken back
- ``threads``  is a thread inside the bytes of a jump over several instructions?
- ``held``     what is held in the guest, memory and registrations, and how it is given back
- ``writes``   what is written before any CPU can come to it: code, data, the recovery table
- ``mapped``   before anything goes live: every page that a probe touches is mapped, in every process
- ``patches``  the text of sites and markers: changed, and put back
- ``visits``   reading what clauses leave behind, while they run
- ``guest``    the guest engine: the order of all these steps
- ``costs``    what the clauses cost, from what they have measured
- ``pace``     how often a guest is stopped to be read, where it must be
- ``blocks``   its data memory, read: records, counters, aggregations, globals
- ``stop``     the stop engine: breakpoints through the stub, clauses evaluated on the host
- ``inplace``  instructions that it steps over where they stand
- ``watch``    its ``mem`` probes: which vCPU has made which access to watched memory
- ``lastinsn`` the instruction that a stopped vCPU has just executed
- ``late``     watchpoint hits that the stub keeps to itself
- ``vcpu``     a stopped vCPU as a firing's world
- ``host``     clauses that the host fires itself: BEGIN, END, tick-N
"""
