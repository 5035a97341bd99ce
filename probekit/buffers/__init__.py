"""The layouts that writer and reader share: records, aggregations, variables, per-CPU blocks.

One definition serves the in-guest code that writes and the host that reads:

- ``layout``       the bytes: record headers, the per-CPU block, its ring, counters and tables
- ``actions``      what a clause records, and what the consumer does with each item
- ``print_types``  the shapes of the values that ``print()`` shows
- ``aggs``         aggregating functions: the words a value has, how values start, merge and finish
- ``quantize``     the bucket arithmetic of ``quantize()``, ``lquantize()`` and ``llquantize()``
- ``variables``    variables in guest memory, and the scratch memory of one firing
- ``formats``      ``printf()`` format strings, parsed once
"""
