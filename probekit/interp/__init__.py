"""IR evaluated on the host: the stop engine's clauses, and BEGIN, END and ticks in both engines.

- ``run``        evaluates one clause once; its record has the same bytes that code in the guest would leave
- ``calls``      the subroutines: one function for each, in a table by name
- ``strings``    strings and paths as D's subroutines have them
- ``json_text``  ``json()``
- ``memory``     a small private address space: scratch memory, declared structs and arrays
- ``state``      what a program keeps between firings: strings, ``self->``, arrays, objects
- ``aggs``       aggregations that the host updates

This package knows no guest: a clause reads everything through :class:`run.EvalContext`.
"""
