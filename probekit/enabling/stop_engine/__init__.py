"""The stop engine: a firing stops the guest, and the host evaluates the clauses.

- ``engine``           set breakpoints through the stub, serve stops, fire
- ``step_slots``       hold the copied instructions in which the guest goes on
- ``step_in_place``    step instructions where they stand, if the kernel finds their faults by address
- ``worlds``           make the world of a firing from the vCPU that has stopped for it
- ``watch``            serve ``mem`` probes: find which vCPU has made which access to watched memory
- ``last_insn``        find the instruction that a stopped vCPU has just executed
- ``unreported_hits``  make the stub report watchpoint hits that it keeps to itself
"""
