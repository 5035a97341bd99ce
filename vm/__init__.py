"""The guests that probekit is tested on: unmodified Debian kernels under QEMU.

``python -m vm`` starts, lists and stops them; :class:`vm.guest.Guest` is the same
for tests and benchmarks. A guest is a Debian kernel, an initramfs built on the
spot (busybox, an init and small static workloads) and one QEMU process with a
gdb stub on a unix socket. Nothing is installed and nothing listens on a network.

Modules, lowest first::

    errors      what can go wrong, with the facts as fields
    paths       cache and runtime directories, atomic writes
    host        Debian packages and commands that the host needs
    modinfo     kernel modules: which, in which order
    kernels     the kernel matrix, and fetching a kernel package
    cpio        the archive format of an initramfs
    build       C sources to static binaries, cached by content
    bpftrace    Debian's bpftrace with its libraries, for comparison
    initramfs   everything of a guest's root, as one archive
    qemu        the command line
    records     vm.json: what runs, where, and how to end it
    problems    oopses, warnings and stalls in a console log
    channel     run a command in a guest
    guest       Guest: start, exec, stop
    cli         the commands of ``python -m vm``
"""
