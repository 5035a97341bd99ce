"""Stop the guest at each firing and evaluate the clauses on the host: the stop engine.

- ``engine``           set breakpoints through the stub, serve stops, fire
- ``step_slots``       keep copies of the sites' instructions in the guest, in which a vCPU goes on after a firing
- ``step_in_place``    step an instruction in its place, if the kernel looks up its faults by address
- ``worlds``           supply the arguments and built-ins of a firing from the vCPU that has stopped for it
- ``watch``            serve ``mem`` probes: find which vCPU has made which access to watched memory
- ``last_insn``        find the instruction that a stopped vCPU has just executed
- ``unreported_hits``  find watchpoint hits of other vCPUs that the stub has not reported
"""
