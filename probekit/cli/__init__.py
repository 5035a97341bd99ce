"""The command line: dtrace(1)'s flags, its exit statuses and its words.

- ``args``        reads the options and arguments
- ``help``        the texts of ``--help``
- ``main``        calls the command; turns every error into a message and an exit status
- ``errors``      the errors of the command line itself
- ``target``      which guest is meant, and how to attach to it
- ``sources``     reads and compiles ``-n``, ``-P``, ``-m``, ``-f``, ``-i`` and ``-s`` as one program
- ``cpp``         ``-C``: scripts through the system's C preprocessor
- ``trace``       runs a program; with ``-l`` and ``-e`` lists or compiles
- ``render``      renders the events of a run to the output
- ``victim``      ``-c`` and ``-p``: a process of the host whose end ends tracing
- ``listing``     ``-l``
- ``prototypes``  the argument types of probes, for ``-l -v`` and ``-v``
- ``stability``   the stability report of ``-v``, and ``-x amin``
- ``disasm``      ``-S``: intermediate code and assembly
- ``recover``     ``probekit recover``
- ``progress``    shows progress on a terminal

Exit statuses: 0, or what ``exit()`` was given; 1 for a script, target or guest that cannot be worked with; 2 for a
command line that makes no sense.
"""
