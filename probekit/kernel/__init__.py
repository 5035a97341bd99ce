"""The guest's Linux kernel, found and described from its memory alone.

No debug files, KASLR on, an untrusted guest. Start at :func:`image.open_kernel`;
the reading order below is also the order of work:

- ``memory``       bounded reads with a scoped page cache over anything with ``read``/``read_many``
- ``view``         reads that reach the kernel wherever the vCPUs stopped (PTI: own page walk)
- ``drive``        runs the guest until a vCPU enters the kernel, when memory cannot be read otherwise
- ``mapped``       which pages of a range are mapped, from the page tables
- ``base``         finds the image: first mapped 2 MiB step, checked against the IDT
- ``kallsyms``     the kernel's own symbol table, decoded by structure
- ``symbols``      the table that others use: by name, by address, text, ranges
- ``symfiles``     symbols from a file, proved against memory
- ``notes``        the build id (ELF notes) and the version banner
- ``places``       finds banner, ELF notes and BTF: by symbol or by their form
- ``text``         guest text made safe for a terminal
- ``types``        the C type model, independent of any format; all that ``lang`` sees
- ``btf``          reads the kernel's and modules' BTF into that model
- ``modules``      the module list, module symbols, module BTF
- ``percpu``       per-CPU offsets, CPU masks, where ``current`` is kept
- ``tasks``        every thread with its stack and saved stack pointer
- ``syscalls``     where a system call finds its arguments, and which one a task is in
- ``sections``     text not to probe, text that the kernel rewrites, text that may fault
- ``orc``          the unwind tables: from a stopped CPU's registers to its callers
- ``tracepoints``  tracepoints: name, system, owner, arguments, registered functions
- ``markers``      static markers of C code, found by their magic
- ``markformat``   types a marker's arguments by its format
- ``cache``        the above on disk, keyed by build id, independent of KASLR
- ``image``        :class:`~probekit.kernel.image.Kernel`, which holds it all

Rules of the layer: every count, length and pointer read from the guest is
bounded and checked; what does not fit is a
:class:`~probekit.errors.SymbolError` (or a ``TargetError`` when memory cannot
be read); layouts are told apart by features, never by version, and each
branch names the commit or version that made it; text from the guest is
escaped before anyone can print it.
"""
