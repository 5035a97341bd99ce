"""The reading end: bytes of guest memory in, neutral events out. Pure; does no I/O and trusts no guest.

- ``events``     the model that every renderer starts from
- ``records``    one record and its plan -> ``ProbeFired``, ``ExitRequested``, ``Fault``, or ``Corrupt``
- ``quick``      readers made for one plan each
- ``bulk``       prints many records of one ``printf()`` at once
- ``printf``     formats rendered as C and DTrace do
- ``printa``     ``printa()`` with a format
- ``aggregate``  keys, merging of CPUs, finishing, DTrace's order, joined columns
- ``store``      the host's copy of every aggregation, for ``clear() trunc() normalize() printa()``
- ``histogram``  the text of ``quantize()``, ``lquantize()`` and ``llquantize()``
- ``flow``       ``-F``: indentation from entries and returns
- ``drops``      counters -> ``Drop``, and the text of drop messages
- ``costs``      what clauses have cost, in words
- ``faults``     faults in DTrace's words
- ``symbols``    addresses and probes by name: ``sym()``, ``stack()``, ``%a``, ``probefunc``
- ``strings``    guest strings decoded and escaped

    read_records() -> record_events() -> Renderer.event()
    stored_rows() -> merge() -> finish() -> Renderer.aggregations()
"""
