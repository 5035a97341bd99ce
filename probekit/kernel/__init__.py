"""Find and describe the guest's Linux kernel from its memory alone.

There are no debug files, KASLR may be on, and the guest is untrusted. Start at
:func:`probekit.kernel.open_kernel.open_kernel`; the modules stand in the order of its work.

Reaching memory:

- ``memory``  read with limits, and with a page cache while the guest stands still
- ``page_tables``  walk page tables in physical memory
- ``address_space``  read kernel memory wherever the vCPUs stopped (page-table isolation)
- ``wait_for_kernel_mode``  run the guest until a vCPU is in the kernel, when nothing else reaches its memory
- ``linked_list``  walk the kernel's lists (``struct list_head``)
- ``escape``  make text from the guest safe to print

Symbols and types:

- ``image_base``  find where the kernel's image is mapped, and check it against the interrupt table
- ``kallsyms``  decode the kernel's own symbol table by its structure
- ``symbols``  hold symbols by name and by address, modules included
- ``symbol_files``  read symbols from a file and check them against memory
- ``c_types``  model C types, independent of any format
- ``btf_sections``  check and index the sections of BTF
- ``btf``  make C types from the BTF of the kernel and of modules
- ``metadata``  find the version banner, the build id and the BTF
- ``disk_cache``  keep all of this on disk by build id, independent of KASLR

The running kernel:

- ``modules``  list loaded modules with their symbols and types
- ``percpu``  find per-CPU areas, the CPUs, and where ``current`` is kept
- ``tasks``  list every thread with its stack and saved stack pointer
- ``syscalls``  find a system call's arguments and number
- ``tracepoints``  list tracepoints and the probes registered with them
- ``markers``  list static markers of C code
- ``marker_format``  give a marker's arguments their types
- ``exclusions``  find the functions that are refused because no trap is allowed in them
- ``text_tables``  read exception tables, static keys and calls, and ftrace's records
- ``orc``  unwind a kernel stack
- ``kernel``  hold all of it: :class:`~probekit.kernel.kernel.Kernel`
- ``open_kernel``  find the kernel in a stopped target

Rules of this package: every count, length and pointer read from the guest is
bounded and checked. What does not fit raises
:class:`~probekit.errors.SymbolError`, or ``TargetError`` when memory cannot
be read. A layout is recognised by its features, never by the kernel's version,
and each branch names the commit or version that introduced it. Text from the
guest is escaped before it is printed.
"""
