"""See a virtual machine through its hypervisor's debugger stub. This is the lowest package.

:class:`~probekit.target.api.Target` is the contract, and two transports keep it.
Nothing here knows a kernel, a probe or a script.

For the rest of probekit:

- ``api``  the contract: ``Target``, ``Regs``, ``StopReason``
- ``connect``  connect to ``unix:PATH``, ``HOST:PORT`` or ``gdb:...``
- ``discovery``  find the local QEMU process of a target by its command line
- ``runtime_stubs``  find the stubs that QEMU's monitor has opened
- ``qmp``  call QEMU's machine protocol: state, events, NMI
- ``guest_ram``  map guest RAM from the hypervisor's file
- ``watchpoints``  plan the watchpoints that watch a range of memory

Transport 1, our own client of the gdb remote protocol, from the bottom up:

- ``transport``  TCP and unix sockets
- ``packets``  frame and unframe packets
- ``packet_stream``  send and receive packets and acknowledgements
- ``pipeline``  send many requests before reading their replies
- ``reply_reader``  read the acknowledgement and the reply of one request
- ``packet_link``  exchange requests and replies, with retransmission
- ``queries``  ask for the vCPU list and the monitor's output
- ``stop_packets``  read why the machine stopped
- ``register_layout``  tell which byte of a ``g`` reply is which register
- ``memory_packets``  cut memory requests into packets
- ``handshake``  ask a stub what it can do
- ``machine_state``  tell whether QEMU's machine ran, and whether it may be set running
- ``stub_session``  hold the state of a connection: running or stopped, its vCPUs
- ``stub_running``  stop, resume and wait, beside others who do the same
- ``stub_memory``  read and write memory, virtual and physical
- ``stub_registers``  read and write registers
- ``stub_breakpoints``  set breakpoints, by INT3 where the stub cannot
- ``rsp``  the target: ``RspTarget``

Transport 2, through a gdb process:

- ``gdb_process``  run gdb and speak MI with it
- ``gdb_memory``  read and write memory
- ``gdb_threads``  map vCPUs to gdb's threads, read and write registers
- ``gdb_breakpoints``  set breakpoints
- ``gdb_stops``  read why the machine stopped
- ``gdb_pauses``  tell whether somebody else has paused the machine
- ``gdb_running``  stop, resume and wait
- ``gdbmi``  the target: ``GdbTarget``

Beyond the contract both transports have ``use_memory_of`` (whose page tables memory
is seen through); the direct one has ``features``, ``request`` and ``physical_memory``.
"""
