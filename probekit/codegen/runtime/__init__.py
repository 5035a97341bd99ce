"""The routines in assembly that clauses call. Each module but ``registry`` and ``agg_tables`` has a table ``ROUTINES``.

- ``registry``       what a routine is, and how one is found
- ``core``           room in the ring, copying, comparing
- ``agg_tables``     look-ups in the tables of hashed aggregations
- ``assoc_arrays``   associative arrays
- ``thread_locals``  thread-local variables
- ``scratch``        memory that a script may write: its own objects, ``alloca()``
- ``loads``          loads from memory that may not be mapped, of the kernel and of processes
- ``stack``          the callers of a probed function
- ``strings``        the subroutines that make strings
- ``string_search``  the subroutines that search in strings
- ``paths``          ``basename()``, ``dirname()``, ``cleanpath()``
- ``numbers``        numbers to strings and back
- ``json_text``      ``json()``
- ``net_addresses``  ``inet_ntop()`` and the like
- ``clock``          the time that a thread has been on a CPU
- ``task_paths``     ``cwd``, ``root``, ``execargs``, ``d_path()``
- ``speculation``    ``speculation()``, ``speculate()``, ``commit()``, ``discard()``
- ``destructive``    ``chill()``, ``raise()``, ``stop()``, ``copyout()``
"""
