"""Attach to a guest, run programs on it, leave it as it was.

- ``api``             what ``import probekit`` offers
- ``attach``          from a target string to an :class:`~probekit.session.attach.Attachment`
- ``lock``            one probekit per guest
- ``identity``        which guest is meant, and which boot of it
- ``journal_log``     the undo journal on this machine's disk, for one guest
- ``options``         runtime options, one table
- ``guesttypes``      types, symbols and prototypes of the guest's kernel, for the compiler
- ``checks``          what must hold of a program before anything is done for it
- ``unsupported``     refuses by name what an engine does not have
- ``run``             one program: start, the loop that consumes, the end
- ``run_state``       what the parts of a run share: exit status, end of tracing, who listens
- ``guestside``       the guest's part of a run: its sites, the engine that makes them live, restoring them
- ``engine_factory``  makes the engine that a run asks for
- ``hostside``        the host's part: BEGIN, END, ERROR and timed probes
- ``sampling``        ``profile-N``: what each CPU is doing when the timer fires
- ``overhead``        what a program takes of the guest's CPU time, and its limit
- ``reading``         what both parts leave, made into events
- ``signals``         Ctrl-C while a guest is in our hands
- ``undo``            undoes what one journal says is in a guest
- ``recover``         puts back what a killed probekit left in a guest
- ``table_scan``      recovery tables that stand in a guest whose journal is elsewhere
"""
