"""Renderers: write the consumer's neutral events as text for people and as JSON for programs.

- ``api``            what a renderer is
- ``text``           dtrace(1)'s text: the header, a line for each record, aggregations
- ``dump``           memory as text: ``tracemem()``, ``trace()`` of bytes, ``print()``
- ``json_lines``     ``--json``: one object a line
- ``json_document``  ``-x oformat=json``: one document, laid out as FreeBSD's dtrace does
- ``probe_list``     writes the probes of ``-l``, as a table and as JSON
- ``effects``        what a script does through its output: ``system() freopen() ftruncate() setopt()``

Renderers add no facts: given the same events, two of them say the same. What ``printf()`` prints, the bars of
``quantize()`` and the messages about drops and faults come from :mod:`probekit.consumer.text`.
"""
