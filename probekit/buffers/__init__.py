"""The layouts that writer and reader share: records, aggregations, per-CPU blocks.

One definition serves the in-guest code that writes and the host that reads:

- ``actions``  what a clause records and what the consumer does with each item
- ``aggs``     aggregating functions: the words a value has, how values start, merge and finish
- ``quantize`` bucket arithmetic of ``quantize()``
- ``formats``  ``printf()`` format strings, parsed once
- ``layout``   the bytes: record headers, the per-CPU block, its ring, counters and tables
"""
