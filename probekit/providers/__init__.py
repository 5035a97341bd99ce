"""Who publishes probes, and what each of them is.

A provider is a small table of functions: which probes match a description, and
where their sites are. ``registry`` asks all of them and keeps the probe IDs.

- ``api``          :class:`Probe` and the :class:`Provider` contract
- ``registry``     all providers of one session
- ``from_kernel``  what one kernel offers: functions, tracepoints, markers, variables
- ``fbt``          function boundary tracing: entry and return of every kernel function
- ``kinst``        any instruction of a kernel function
- ``syscall``      the entry and the return of every system call
- ``tracepoint``   the tracepoints of the kernel and its modules
- ``marker``       static markers of C code (vm/include/probekit/marker.h)
- ``mem``          each access of a range of guest memory
- ``profile``      tick-N and profile-N, run by the host
- ``dtrace``       BEGIN, END, ERROR
"""
