"""The guest engine: clauses become machine code that lives in the guest.

- ``engine``         the order of all steps: enable, drain, restore
- ``plan``           decide before anything is allocated: which CPUs have blocks, how much memory of each kind
- ``data_layout``    lay out our data memory: activity word, globals, site table, strings, per-CPU blocks
- ``stubs``          build an inline increment or a call of a thunk for each site
- ``traps``          build what INT3 sites need: the handler, a hash of sites, the exception table
- ``resources``      hold memory and registrations in the guest, and give them back
- ``callbacks``      register functions with tracepoints, and keep modules loaded
- ``heartbeat``      start the watchdog in the guest, and send it the host's heartbeat
- ``install``        write code, data and the recovery table before any CPU can reach them
- ``mapping_check``  check before a site goes live that every page a probe touches is mapped in every process
- ``patches``        change the text of sites and markers, and put it back
- ``staged_edits``   change sites in stages while the guest runs, and put them back
- ``live_markers``   connect markers and switch them on, and the way back
- ``stack_check``    find threads inside the bytes of a jump over several instructions
- ``drain``          read what clauses leave behind while they run, and decide how often
- ``data_memory``    read our data memory: records, counters, aggregations, globals
- ``variables``      read and write strings and associative arrays from the host
- ``costs``          compute what the clauses cost, from what they have measured
"""
