"""Name probes: the four fields, their globs, and the integers that stand for them.

- ``names``  :class:`ProbeName` (one probe) and :class:`ProbeDescription` (a pattern that matches many)

This package knows no provider and no guest.
"""
