"""ECBs (enabling control blocks): clauses made live at their probes, and taken back.

A probe and the clauses enabled at it are an ECB list; a probe has one or more
*sites*, the places in guest text that are patched for it. Two engines run the
same compiled program. They share the modules below and import nothing of each other.

- ``guest_engine``     clauses live in the guest as machine code
- ``stop_engine``      clauses are evaluated on the host, at a stopped vCPU
- ``host``             clauses that the host fires itself, and a stopped vCPU as a firing's world

- ``api``              what an engine is: the protocol, its options, what it drains
- ``ecb``              match descriptions to probes; the clauses of each
- ``guest_access``     the ways to the guest: memory while it is stopped, pauses, guest calls, the log
- ``sites``            from probes to places in live text, with the reason for each that has none
- ``speculation``      speculation buffers, kept on the host
- ``syscall_returns``  where a system call returns to
- ``text_facts``       where no INT3 may stand, and which text the kernel rewrites
"""
