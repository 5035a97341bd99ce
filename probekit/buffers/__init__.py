"""Define the memory layouts that code in the guest writes and the host reads.

- ``layout``       lay out record headers, and each CPU's block: its ring, counters and tables
- ``actions``      define what a clause records, and what the consumer does with each item
- ``print_types``  describe the values that ``print()`` shows
- ``aggs``         define aggregating functions: a value's words, how it starts, and how two values merge
- ``quantize``     compute the buckets of ``quantize()``, ``lquantize()`` and ``llquantize()``
- ``variables``    lay out variables in guest memory, and the scratch memory of one firing
- ``formats``      parse ``printf()`` format strings
"""
