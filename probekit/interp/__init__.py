"""IR evaluated on the host: the stop engine's clauses, and BEGIN, END and ticks in both engines.

- ``run``       one clause, once: its record's bytes, exactly as code in the guest would leave them
- ``calls``     the subroutines: one function for each, in a table by name
- ``text``      strings and paths as D's subroutines have them
- ``jsontext``  ``json()``
- ``memory``    a small private address space: scratch memory, declared structs and arrays
- ``state``     what a program keeps between firings: strings, ``self->``, arrays, objects
- ``aggs``      aggregations that the host feeds

This package knows no guest: what a clause reads comes through :class:`run.Context`.
"""
