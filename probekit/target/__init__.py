"""The lowest layer: a virtual machine seen through its hypervisor's debugger stub.

:class:`~probekit.target.api.Target` is the contract; two transports keep it.
Nothing here knows a kernel, a probe or a script.

=================  ===========================================================
``api``            the contract: ``Target``, ``Regs``, ``StopReason``
``connect``        from ``unix:PATH``, ``HOST:PORT``, ``gdb:...`` to a target
``rsp``            transport 1: our own client of the gdb remote protocol
``gdbmi``          transport 2: through a gdb process (``gdbproc``)
``qmp``            QEMU's machine protocol: state, events, NMI
``discovery``      the local QEMU process behind a target, from its command line
``ram``            guest RAM mapped from the hypervisor's file
``watchpoints``    how a range of memory becomes watchpoints
``paging``         a page table walk over any reader of physical memory
=================  ===========================================================

The direct transport is built from small parts, each testable alone:
``transport`` (sockets) < ``packets`` (framing) < ``link`` (acknowledgements,
retransmission, many requests in flight) < ``handshake``, ``queries``,
``memory``, ``registers``, ``breakpoints``, ``stops`` < ``rsp``.

Beyond the contract both transports have ``last_stop`` and ``use_memory_of``
(whose page tables memory is seen through); the direct one has ``features``,
``request``, ``read_phys``, ``write_phys`` and ``physical_memory``.
"""
