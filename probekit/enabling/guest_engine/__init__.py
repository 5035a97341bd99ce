"""Run clauses as machine code in the guest: the guest engine.

- ``engine``         call all other steps in order: enable, drain, restore
- ``plan``           decide before anything is allocated which CPUs have blocks, and how much memory is needed
- ``data_layout``    lay out our data memory: activity word, globals, site table, strings, per-CPU blocks
- ``stubs``          build an inline increment or a call of a thunk for each site
- ``traps``          build what INT3 sites need: the handler, a hash of sites, the exception table
- ``resources``      allocate guest memory and register with the kernel; at the end or on SIGTERM free and unregister
- ``callbacks``      register functions with tracepoints, and keep modules loaded
- ``heartbeat``      start the watchdog in the guest, and send it the host's heartbeat
- ``install``        write code, data and the recovery table before any CPU can reach them
- ``mapping_check``  check before a site goes live that every page a probe touches is mapped in every process
- ``patches``        change the text of sites and markers, and restore it
- ``staged_edits``   change sites in stages while the guest runs, and restore them
- ``live_markers``   connect markers and switch them on, and off again
- ``stack_check``    find threads inside the bytes of a jump over several instructions
- ``drain``          read records and counters while clauses run, and decide how often
- ``data_memory``    read our data memory: records, counters, aggregations, globals
- ``read_times``     tell until which time everything that the CPUs have recorded has been read
- ``variables``      read and write strings and associative arrays from the host
- ``costs``          compute the CPU time of clauses from their own measurements
"""
