"""The guest's Linux kernel, found and described from its memory alone.

No debug files, KASLR on, an untrusted guest. Reading order:

``memory``    bounded, cacheable reads over anything with ``read``/``read_many``
``base``      where the image is (first mapped 2 MiB step, checked against the IDT)
``kallsyms``  the kernel's own symbol table, decoded by structure

Rules of the layer: every count, length and pointer read from the guest is
bounded and checked; what does not fit is a
:class:`~probekit.errors.SymbolError`; layouts are told apart by features,
never by version, and each branch names the commit that made it.
"""
