"""The command line: dtrace(1)'s flags, its exit statuses and its words.

- ``args``        the argument tree
- ``help``        the text of ``--help``
- ``main``        dispatch; every error becomes one paragraph and an exit status
- ``errors``      the errors of the command line itself
- ``sources``     ``-n``, ``-P``, ``-m``, ``-f``, ``-i`` and ``-s`` into one program
- ``cpp``         ``-C``: scripts through the system's C preprocessor
- ``trace``       run a program and render its events
- ``victim``      ``-c`` and ``-p``: a process of the host whose end ends tracing
- ``listing``     ``-l``
- ``prototypes``  the arguments of probes, for ``-l -v`` and ``-v``
- ``stability``   the stability report of ``-v``, and ``-x amin``
- ``disasm``      ``-S``: intermediate code and assembly
- ``recover``     ``probekit recover``
- ``progress``    shows progress on a terminal

Exit statuses: 0, or what ``exit()`` was given; 1 a script, target or guest that
cannot be worked with; 2 a command line that makes no sense.
"""
