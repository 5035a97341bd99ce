"""The lowest layer: a virtual machine seen through its hypervisor's debugger stub.

:class:`~probekit.target.api.Target` is the contract; two transports keep it.
Nothing here knows a kernel, a probe or a script.

- ``api``          the contract that every transport keeps: :class:`Target`
- ``connect``      from what the user wrote after ``-r`` to a connected :class:`Target`
- ``discovery``    the QEMU process of a local target: its pid, monitor sockets and memory file
- ``rsp``          the direct transport: our client of the gdb remote serial protocol
- ``transport``    byte streams to a stub: TCP and unix sockets, every wait with a limit
- ``packets``      the protocol's framing, as pure functions
- ``link``         packets over a stream: acknowledgements, retransmission, many requests in flight
- ``handshake``    what a stub can do, asked once when connecting
- ``queries``      questions whose answer takes several packets: the vCPU list, the monitor's output
- ``stops``        stop packets read into a :class:`StopReason`
- ``registers``    which byte of a ``g`` reply is which register
- ``memory``       how memory requests are cut into packets and put together again
- ``paging``       x86-64 page tables, walked by hand
- ``breakpoints``  the breakpoints and watchpoints that are set in one stub
- ``gdbmi``        the same contract through gdb
- ``gdbproc``      a gdb process that speaks MI, through pygdbmi
- ``qmp``          QEMU's machine protocol (QMP) as plain calls
- ``ram``          guest RAM that the hypervisor keeps in a file

The direct transport is built from small parts, each testable alone:
``transport`` < ``packets`` < ``link`` < ``handshake``, ``queries``,
``memory``, ``registers``, ``breakpoints``, ``stops`` < ``rsp``.

Beyond the contract both transports have ``last_stop`` and ``use_memory_of``
(whose page tables memory is seen through); the direct one has ``features``,
``request``, ``read_phys``, ``write_phys`` and ``physical_memory``.
"""
