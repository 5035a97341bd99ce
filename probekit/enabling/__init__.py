"""Enable the clauses of a program at their probes, and disable them again.

A probe with the clauses enabled at it is an ECB (enabling control block). A probe
has one or more *sites*, the places in guest text that are patched for it. Two engines
run the same compiled program. They share the modules below and import nothing from each
other.

- ``guest_engine``     run clauses in the guest, as machine code
- ``stop_engine``      evaluate clauses on the host, at a stopped vCPU
- ``host``             evaluate clauses on the host: the interpreter's arguments, built-ins and variables

- ``api``              define the protocol that both engines implement, their options and their results
- ``ecb``              match probe descriptions to probes
- ``firing_order``     decide which of several probes at one place fires first
- ``guest_access``     collect what the parts of an engine need to reach the guest
- ``registrations``    list our registrations with the guest's kernel, and unregister each kind
- ``release``          free our guest memory and unregister, at a normal end, after SIGTERM and in a recovery
- ``sites``            find the places in live text for each probe, or the reason why there is none
- ``speculation``      keep speculative records on the host
- ``syscall_returns``  find where a system call returns when its function ends in a jump
- ``text_facts``       find where no INT3 may be put, and which text the kernel rewrites
"""
