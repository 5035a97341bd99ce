"""Find out what engines must know about a guest's kernel, call its functions, and reach its memory.

Facts:

- ``find_facts``   find all facts of one guest, once, after attaching
- ``facts``        hold them: what the engines need to know of one guest
- ``offsets``      byte offsets in the kernel's structures, and kernel functions that generated code calls

Calling the kernel's functions:

- ``call_points``  find places in a Linux kernel where a function may be called from outside
- ``calls``        describe a guest call: the task that it borrows, and what it changes in the kernel
- ``borrowed``     describe a borrowed task on its own stack, for a recovery without the journal
- ``safepoint``    reach such a place, call functions there, give the task back
- ``watched_run``  let the guest run until it stops by itself, and look now and then whether it is alive
- ``linux``        allocate, make executable, free, and wait for readers, by functions found by feature
- ``module_refs``  keep modules from being unloaded, by a reference as every user takes it
- ``tracepoints``  register functions of ours as probes of the kernel's tracepoints
- ``trap_registration``  register our INT3 handler and exception table with the kernel
- ``trap_table``   build the hash of INT3 sites that the handler in the guest looks in
- ``watchdog``     build the timer in the guest that silences our clauses when the host has gone

Ending:

- ``grace_period``  wait for RCU readers without a borrowed task that sleeps in the wait
- ``stack_search``  find tasks that are inside our code or will return to it, and wait until there is none
- ``health``       notice that the guest rebooted, panicked or was shut down

Guest memory:

- ``memory``       read and write our data memory while the guest runs: by the shared RAM file, or by short stops
- ``ram_reader``   read kernel memory through the shared RAM file
- ``kernel_text``  read and write kernel text and data while the guest is stopped, page-table isolation or not
- ``safe_loads``   read kernel memory that a script's pointers lead to: plain RAM, nothing else
- ``process_page_tables``  tell whether all processes map the kernel's half alike
- ``stacks``       unwind the kernel stack of a stopped CPU by the kernel's own tables
"""
