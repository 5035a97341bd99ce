"""Attach to a guest, run programs on it, leave it as it was.

- ``api``       what `import probekit` offers
- ``attach``    from a target string to an :class:`~probekit.session.attach.Attachment`
- ``gather``    the facts of one guest that the engines need
- ``gathertraps`` how INT3 is taken in one guest, and where it must not be put
- ``guesttypes`` types, symbols and prototypes of the guest's kernel, for the compiler
- ``state``     the undo journal and the lock on this machine's disk, for one guest
- ``checks``    what must hold of a program before anything is done for it
- ``run``       one program: start, the loop that consumes, the end
- ``guestside`` the guest's part of a run: its sites, the engine that makes them live, restoring them
- ``hostside``  the host's part: BEGIN, END, ERROR and timed probes
- ``reading``   what both leave behind, made into events
- ``options``   runtime options, one table
- ``signals``   Ctrl-C while a guest is in our hands
- ``recover``   put a guest right after a probekit that was killed
"""
