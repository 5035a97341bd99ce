"""Attach to a guest, run programs on it, leave it as it was.

Attaching:

- ``api``             what ``import probekit`` offers
- ``attach``          from a target string to an :class:`~probekit.session.attach.Attachment`
- ``opening``         connects, and finds out whether the guest runs or somebody has paused it
- ``lock``            one probekit per guest
- ``guest_types``     types, symbols and prototypes of the guest's kernel, for the compiler

- ``identity``        which guest is meant, and which boot of it

One run of a program, from BEGIN to the last aggregation:

- ``options``         runtime options, one table
- ``checks``          what must hold of a program before anything is done for it
- ``unsupported``     refuses by name what an engine does not have
- ``run``             the order of a run: start, the loop that drains, restoring, the end
- ``run_state``       what the parts of a run share: exit status, end of tracing, where output goes
- ``guest_tracing``   the probes in the guest: find their sites, enable, drain, restore
- ``engine_factory``  makes the engine that a run asks for
- ``host_tracing``    the probes that fire on the host: BEGIN, END, ERROR, tick-N and profile-N
- ``sampling``        ``profile-N``: what each CPU is doing when the timer fires
- ``event_stream``    turns the records of guest and host into events, and counts what was lost
- ``overhead``        how much of the guest's CPU time a program takes, and its limit
- ``signals``         SIGINT, SIGTERM and SIGHUP while a guest is attached

After a probekit that was killed:

- ``journal_log``     the undo journal on this machine's disk, for one guest
- ``undo``            undoes what one journal says is in a guest
- ``recover``         puts back what a killed probekit left in a guest
- ``table_scan``      recovery tables that stand in a guest whose journal is elsewhere
"""
