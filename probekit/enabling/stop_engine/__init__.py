"""The stop engine: a firing stops the guest, and the host evaluates the clauses.

- ``engine``         breakpoints through the stub, firings, the copied instruction that the guest goes on in
- ``step_in_place``  instructions that are stepped over where they stand
- ``watch``          ``mem`` probes: which vCPU has made which access to watched memory
- ``last_insn``      the instruction that a stopped vCPU has just executed
- ``unreported_hits``      watchpoint hits that the stub keeps to itself
"""
