"""What the runtime asks of a guest kernel: call its functions, have memory of it, know its per-CPU layout.

- ``candidates``  places in a Linux kernel where a function may be called from outside
- ``safepoint``   reach such a place, call functions there, give everything back
- ``linux``       the services by feature: allocate, make executable, per-CPU storage, free, synchronize
- ``ramtext``     kernel memory read through the shared RAM file
- ``text``        kernel text and data while the guest is stopped, page-table isolation or not
- ``health``      a guest that rebooted, panicked or was shut down under us
- ``memory``      guest data memory while the guest runs: by the shared RAM file, or by short stops
"""
