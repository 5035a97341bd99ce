"""Carry out the command line: dtrace(1)'s flags, with its exit statuses and its messages.

- ``args``         reads the options and arguments
- ``help``         has the texts of ``--help``
- ``main``         calls the command; turns every error into a message and an exit status
- ``errors``       has the error of a script that cannot be read or compiled
- ``target``       finds out which guest is meant, and how to attach to it
- ``sources``      reads and compiles ``-n``, ``-P``, ``-m``, ``-f``, ``-i`` and ``-s`` as one program
- ``cpp``          runs scripts through the system's C preprocessor, for ``-C``
- ``trace``        runs a program; with ``-l`` and ``-e`` lists or compiles
- ``render``       renders the events of a run to the output
- ``victim``       starts or watches a process of the host whose end ends tracing, for ``-c`` and ``-p``
- ``list_probes``  lists the probes that match, for ``-l``
- ``prototypes``   finds the argument types of probes, for ``-l -v`` and ``-v``
- ``stability``    writes the stability report of ``-v``, and checks ``-x amin``
- ``disasm``       shows intermediate code and assembly, for ``-S``
- ``recover``      carries out ``probekit recover``
- ``progress``     shows progress on a terminal

The exit status is 0 or the argument of ``exit()``; 1 when a script, target or guest has an error; 2 for a malformed
command line.
"""
