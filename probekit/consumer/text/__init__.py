"""The text of what is shown: formats, histograms, and the messages about drops, faults and costs.

DTrace's own words and columns wherever DTrace has them. Renderers (:mod:`probekit.output`) only place these texts.

- ``printf``    ``printf()``: formats rendered as C and DTrace do
- ``printa``    ``printa()`` with a format
- ``quantize``  the bars of ``quantize()``, ``lquantize()`` and ``llquantize()``
- ``drops``     drop messages: ``12 drops on CPU 0``
- ``faults``    faults: ``error in clause 2 for probe ID 3 (...): invalid address (0x10)``
- ``costs``     what clauses have cost
- ``strings``   guest strings decoded and escaped
"""
