"""What the runtime asks of a guest kernel: call its functions, use memory of it, know its structures.

Facts about the guest:

- ``facts``        all that the engines need to know of one guest
- ``survey``       gathers those facts once, while the guest is stopped
- ``offsets``      byte offsets in the kernel's structures, and the kernel functions that generated code calls

Calling its functions:

- ``candidates``   places in a Linux kernel where a function may be called from outside
- ``safepoint``    reaches such a place, calls functions there, puts everything back
- ``linux``        the kernel's services by feature: allocate, make executable, per-CPU storage, free, synchronize
- ``holds``        keeps modules from being unloaded
- ``tracepoints``  registers functions of ours with the kernel's tracepoints
- ``traphooks``    puts our INT3 handler on the kernel's lists: die notifiers, exception tables
- ``traptable``    the hash of INT3 sites that the handler in the guest searches
- ``watchdog``     a timer in the guest that silences our clauses when the host has gone

When nobody is in our code any more:

- ``grace``        waits for RCU readers without lending a task to the wait
- ``residents``    tasks that sleep inside our code
- ``stacks``       the callers of a stopped CPU, by the kernel's own unwind tables

Its memory:

- ``text``         kernel text and data while the guest is stopped, page-table isolation or not
- ``memory``       our data memory while the guest runs: by the shared RAM file, or by short stops
- ``ramtext``      kernel memory read through the shared RAM file
- ``peek``         kernel memory that a script's pointers lead to: plain RAM, nothing else
- ``spaces``       page tables of the kernel and of every process
- ``health``       notices a guest that rebooted, panicked or was shut down
"""
