"""The command line: dtrace(1)'s flags, its exit statuses and its words.

- ``args``     the argument tree
- ``main``     dispatch; every error becomes one paragraph and an exit status
- ``sources``  ``-n`` and ``-s`` into one program
- ``trace``    run a program and render its events
- ``listing``  ``-l``
- ``prototypes`` the arguments of probes, for ``-l -v`` and ``-v``
- ``recover``  ``probekit recover``
- ``progress`` what is going on, on a terminal

Exit statuses: 0, or what ``exit()`` was given; 1 a script, target or guest that
cannot be worked with; 2 a command line that makes no sense.
"""
