"""Make clauses live at their probes, and take them back.

A probe with the clauses enabled at it is an ECB (enabling control block). A probe
has one or more *sites*, the places in guest text that are patched for it. Two engines
run the same compiled program. They share the modules below and import nothing of each
other.

- ``guest_engine``     run clauses in the guest, as machine code
- ``stop_engine``      evaluate clauses on the host, at a stopped vCPU
- ``host``             evaluate clauses on the host: the interpreter's arguments, built-ins and variables

- ``api``              the protocol that both engines implement, their options, and what they return when drained
- ``ecb``              match probe descriptions to probes
- ``guest_access``     what the parts of an engine need to reach the guest
- ``registrations``    what the guest's kernel has registered of ours, and how each kind is taken back
- ``release``          give back everything that we hold in a guest, at a normal end and in a recovery
- ``sites``            find the places in live text for each probe, or the reason why there is none
- ``speculation``      keep speculative records on the host
- ``syscall_returns``  find where a system call returns whose function ends in a jump
- ``text_facts``       find where no INT3 may be put, and which text the kernel rewrites
"""
