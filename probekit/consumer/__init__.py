"""The reading end: bytes of guest memory in, neutral events out. Pure; does no I/O and trusts no guest.

- ``events``     the model that every renderer starts from
- ``records``    one record and its plan -> ``ProbeFired``, ``ExitRequested``, ``Fault``, or ``Corrupt``
- ``printf``     formats rendered as C and DTrace do
- ``aggregate``  keys, merging of CPUs, finishing, DTrace's order, joined columns
- ``flow``       ``-F``: indentation from entries and returns
- ``drops``      counters -> ``Drop``, in DTrace's words
- ``costs``      what clauses have cost, in words
- ``faults``     faults in DTrace's words
- ``strings``    guest strings decoded and escaped

    read_records() -> record_events() -> Renderer.event()
    stored_rows() -> merge() -> finish() -> Renderer.aggregations()
"""
