"""What the runtime asks of a guest kernel: call its functions, have memory of it, know its per-CPU layout.

- ``call_points``  places in a Linux kernel where a function may be called from outside
- ``safepoint``   reach such a place, call functions there, give everything back
- ``linux``       the services by feature: allocate, make executable, per-CPU storage, free, synchronize
- ``traptable``   the hash of INT3 sites that the handler in the guest looks in
- ``traphooks``   our INT3 sites on the kernel's lists: die notifiers, exception tables
- ``tracepoints`` functions of ours registered with the kernel's tracepoints
- ``grace``       waiting for readers without lending a task to the wait
- ``holds``       modules kept from being unloaded
- ``residents``   tasks that sleep inside our code
- ``ramtext``     kernel memory read through the shared RAM file
- ``peek``        kernel memory that a script's pointers lead to: plain RAM, nothing else
- ``text``        kernel text and data while the guest is stopped, page-table isolation or not
- ``spaces``      page tables of the kernel and of every process
- ``health``      a guest that rebooted, panicked or was shut down under us
- ``memory``      guest data memory while the guest runs: by the shared RAM file, or by short stops
"""
