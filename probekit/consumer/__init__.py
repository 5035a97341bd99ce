"""Turn bytes of guest memory into neutral events and text. Pure: does no I/O, and checks everything from the guest.

- ``events``             defines the events that every renderer starts from
- ``record_events``      turns a record and its plan into ``ProbeFired``, ``ExitRequested``, ``Fault``, or ``Corrupt``
- ``record_order``       puts the records of all CPUs in order of time, and holds back what may not be complete
- ``plan_readers``       makes fast readers, each for the records of one clause
- ``bulk``               prints many records of one ``printf()`` at once
- ``aggregations``       decodes keys, merges CPUs, computes values, sorts as DTrace does, joins columns
- ``aggregation_store``  keeps the host's copy of every aggregation, for ``clear() trunc() normalize() printa()``
- ``flow``               computes the indentation of ``-F`` from entries and returns
- ``drop_meter``         counts lost data; the text of a drop message is in ``text.drops``
- ``symbols``            names addresses and probes for ``sym()``, ``stack()``, ``%a``, ``probefunc``
- ``text``               makes the text for users: formats, histograms, messages about drops and faults

    read_records() -> record_events() -> Renderer.event()
    stored_rows() -> merge() -> finish() -> Renderer.aggregations()
"""
