"""Publish probes: each provider knows its probes' names and kinds, and where they are.

A provider tells which of its probes match a description. ``registry`` asks all of them and finds probes by ID.

- ``api``  define :class:`Probe` and the :class:`Provider` contract
- ``registry``  ask all providers of a session as one
- ``from_kernel``  give the providers the functions, tracepoints, markers and variables of one kernel
- ``function_table``  the functions of one kernel, as columns
- ``fbt``  function boundary tracing: entry and return of every kernel function
- ``kinst``  any instruction of a kernel function
- ``syscall``  entry and return of every system call
- ``tracepoint``  the tracepoints of the kernel and its modules
- ``marker``  static markers of C code (vm/include/probekit/marker.h)
- ``mem``  each access to a range of guest memory
- ``profile``  tick-N and profile-N, fired by the host's clock
- ``dtrace``  BEGIN, END, ERROR
"""
