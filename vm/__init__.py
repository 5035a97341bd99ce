"""Boot the guests that probekit is tested on: unmodified Debian kernels under QEMU.

``python -m vm`` starts, lists and stops them; tests and benchmarks use :class:`vm.guest.Guest`.
A guest is a Debian kernel, an initramfs built on the
spot (busybox, an init and small static workloads) and one QEMU process with a
gdb stub on a unix socket. Nothing is installed and nothing listens on a network.

The modules, lowest first:

- ``errors``  define the errors of this package
- ``paths``  find cache and runtime directories; write files atomically
- ``host``  check and install the Debian packages that the host needs
- ``module_order``  choose kernel modules, and the order to load them in
- ``kernels``  define the kernel matrix, and fetch a kernel package
- ``module_build``  build our own kernel modules
- ``cpio``  write the archive format of an initramfs
- ``build``  compile C sources to static binaries
- ``bpftrace``  make an archive of Debian's bpftrace with its libraries, for comparison
- ``initramfs``  make a guest's root file system
- ``qemu``  build the command line
- ``guest_records``  keep a record of each guest, and end guests by it
- ``console_problems``  find oopses, warnings and stalls in a console log
- ``channel``  run a script in a guest
- ``guest``  start, use and stop a guest
- ``kernel_code``  read the code of a guest's kernel from its memory file
- ``cli``  run the commands of ``python -m vm``
- ``demo``  count a guest's system calls with probekit, and compare

This folder also has ``rootfs`` (PID 1 and the exec agent), ``workloads`` and ``modules`` (C programs and kernel modules
to trace), ``include`` (the header for static markers) and ``bootstrap.sh`` (prepare this machine).
"""
