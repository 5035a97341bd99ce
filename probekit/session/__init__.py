"""Attach to a guest, run programs on it, leave it as it was.

- ``api``       what `import probekit` offers
- ``attach``    from a target string to an :class:`~probekit.session.attach.Attachment`
- ``gather``    the facts of one guest that the engines need
- ``state``     the undo journal and the lock on this machine's disk, for one guest
- ``run``       one program: match, enable, consume, fire BEGIN, END and ticks, disable
- ``options``   runtime options, one table
- ``signals``   Ctrl-C while a guest is in our hands
- ``recover``   put a guest right after a probekit that was killed
"""
