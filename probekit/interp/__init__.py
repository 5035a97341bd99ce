"""IR evaluated on the host: the stop engine's clauses, and BEGIN, END and ticks in both engines.

- ``run``   one clause, once: its record's bytes, exactly as code in the guest would leave them
- ``aggs``  aggregations that the host feeds

This package knows no guest: what a clause reads comes through :class:`run.Context`.
"""
