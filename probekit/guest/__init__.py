"""What the runtime asks of a guest kernel, and what it found out about it.

- ``call_points``  places in a Linux kernel where a function may be called from outside
- ``calls``        what a guest call borrows, and what it is for
- ``safepoint``    reach such a place, call functions there, give everything back
- ``linux``        the kernel's services, found by feature: allocate, make executable, free, synchronize
- ``facts``        what the engines need to know of one guest
- ``offsets``      byte offsets in the kernel's structures, and kernel functions that generated code calls
- ``survey``       find all of these facts in one guest
- ``traptable``    the hash of INT3 sites that the handler in the guest looks in
- ``traphooks``    register our INT3 handler and exception table with the kernel
- ``tracepoints``  register functions of ours as probes of the kernel's tracepoints
- ``watchdog``     a timer in the guest that silences our clauses when the host has gone
- ``grace``        wait for RCU readers without a borrowed task that sleeps in the wait
- ``holds``        keep modules from being unloaded
- ``residents``    find tasks that sleep inside our code and will come back to it
- ``stacks``       find the callers of what a stopped CPU is doing
- ``memory``       our data memory while the guest runs: by the shared RAM file, or by short stops
- ``ramtext``      read kernel memory through the shared RAM file
- ``text``         read and write kernel text and data while the guest is stopped, page-table isolation or not
- ``peek``         read kernel memory that a script's pointers lead to: plain RAM, nothing else
- ``spaces``       compare the kernel's half of the page tables of all processes
- ``health``       notice that the guest rebooted, panicked or was shut down
"""
