"""Who publishes probes, and what each of them is.

A provider is a small table of functions: which probes match a description, and
where their sites are. ``registry`` asks all of them and keeps the probe IDs.

- ``api``       :class:`Probe` and the :class:`Provider` contract
- ``fbt``       function boundary tracing: entry and return of every kernel function
- ``dtrace``    BEGIN, END, ERROR
- ``profile``   tick-N, run by the host
- ``registry``  all providers of one session
"""
