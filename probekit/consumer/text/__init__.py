"""Make the text for users: formats, histograms, and the messages about drops, faults and costs.

The words and columns are DTrace's, if DTrace has such a text. Renderers (:mod:`probekit.output`) only place it.

- ``printf``    renders the formats of ``printf()`` as C and DTrace do
- ``printa``    renders ``printa()`` with a format
- ``quantize``  draws the bars of ``quantize()``, ``lquantize()`` and ``llquantize()``
- ``drops``     has the text of each drop message: ``12 drops on CPU 0``
- ``faults``    has the text of each fault: ``error in clause 2 for probe ID 3 (...): invalid address (0x10)``
- ``costs``     has the text about the CPU time of clauses, for ``-v`` and ``maxoverhead``
- ``strings``   decodes and escapes strings from the guest
"""
