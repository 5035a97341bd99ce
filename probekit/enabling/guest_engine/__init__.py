"""The guest engine: clauses become machine code that lives in the guest.

- ``engine``         the order of all steps: enable, drain, restore
- ``plan``           what an enabling will be: which blocks, how much memory of each kind
- ``data_layout``    our data memory: activity word, globals, site table, strings, per-CPU blocks
- ``stubs``          an inline increment or a call of a thunk for each site, laid out after the shared code
- ``traps``          what INT3 sites need: the handler, a hash of sites, the exception table
- ``resources``      what is held in the guest, memory and registrations, and how it is given back
- ``registrations``  what the guest's kernel has registered of ours, and how each kind is unregistered
- ``callbacks``      what the kernel itself calls: tracepoint probes; modules that stay loaded
- ``heartbeat``      the watchdog in the guest, and the host's sign of life for it
- ``install``        what is written before any CPU can come to it: code, data, the recovery table
- ``mapping_check``  before a site goes live: every page that a probe touches is mapped, in every process
- ``patches``        the text of sites and markers: changed, and put back
- ``staged_edits``   sites changed while the guest runs, in stages, and the way back
- ``live_markers``   markers connected and switched on, and the way back
- ``stack_check``    whether a thread stands inside the bytes of a jump over several instructions
- ``drain``          reads what clauses leave behind, while they run, and decides how often
- ``data_memory``    our data memory as it is read: records, counters, aggregations, globals
- ``variables``      globals and associative arrays, read and written from the host
- ``costs``          what the clauses cost, from what they have measured
"""
