"""Attach to a guest, run programs on it, and restore it.

Attaching:

- ``api``             what ``import probekit`` offers
- ``attach``          turns a target string into an :class:`~probekit.session.attach.Attachment`
- ``opening``         connects, and finds out whether the guest runs or somebody has paused it
- ``liveness``        tells whether the kernel that was attached to still runs
- ``lock``            allows one probekit per guest
- ``exclusive``       allows one trace of a guest, and one thread, at a time
- ``identity``        names a guest, and one boot of it
- ``guest_types``     tells the compiler types, symbols and prototypes of the guest's kernel

One run of a program, from BEGIN to the last aggregation:

- ``options``         has the table of runtime options
- ``checks``          refuses a program that cannot run, before the guest is changed
- ``engine_support``  refuses a program that uses something its engine does not have, and names that
- ``run``             has the order of a run: start, the loop that drains, restoring, the end
- ``run_state``       holds what the parts of a run share: exit status, end of tracing, where output goes
- ``guest_sites``     finds the sites of a program's probes in the guest
- ``guest_tracing``   serves the probes in the guest: finds their sites, enables, drains, restores
- ``run_limits``      tells when a run ends, and how long it may wait until then
- ``restoring``       restores the guest at the end of a run, however it ends
- ``engine_factory``  makes the engine that a run asks for
- ``host_tracing``    serves the probes that fire on the host: BEGIN, END, ERROR, tick-N and profile-N
- ``sampling``        reads what each CPU is doing when the timer of ``profile-N`` fires
- ``event_stream``    turns the records of guest and host into events, and counts what was lost
- ``overhead``        measures how much of the guest's CPU time a program takes, and compares it with the limit
- ``signals``         notes SIGINT, SIGTERM and SIGHUP; the run then ends, and the guest's memory is restored and freed

After a probekit that was killed:

- ``journal_log``     writes and reads the undo journal of one guest, on this machine's disk
- ``undo``            undoes everything that one journal lists
- ``presence``        tells whether what a journal lists is still in this guest
- ``recover``         restores a guest that a killed probekit left changed
- ``table_scan``      finds recovery tables in a guest whose journal is on another machine
"""
