"""The reading end: bytes of guest memory in, neutral events and their text out. Pure; does no I/O, trusts no guest.

- ``events``             the model that every renderer starts from
- ``record_events``      one record and its plan -> ``ProbeFired``, ``ExitRequested``, ``Fault``, or ``Corrupt``
- ``plan_readers``       fast readers, each made for the records of one clause
- ``bulk``               prints many records of one ``printf()`` at once
- ``aggregations``       decodes keys, merges CPUs, finishes values, sorts as DTrace does, joins columns
- ``aggregation_store``  the host's copy of every aggregation, for ``clear() trunc() normalize() printa()``
- ``flow``               ``-F``: indentation from entries and returns
- ``drops``              counts what was lost
- ``symbols``            addresses and probes by name: ``sym()``, ``stack()``, ``%a``, ``probefunc``
- ``text``               the text of what is shown: formats, histograms, messages about drops and faults

    read_records() -> record_events() -> Renderer.event()
    stored_rows() -> merge() -> finish() -> Renderer.aggregations()
"""
