"""Write the consumer's neutral events as text for people and as JSON for programs.

- ``api``            defines the protocol of a renderer, and the style of text
- ``text``           writes dtrace(1)'s text: the header, a line for each record, aggregations
- ``dump``           writes memory as text: ``tracemem()``, ``trace()`` of bytes, ``print()``
- ``json_lines``     writes one JSON object on each line, for ``--json``
- ``json_document``  writes one JSON document as FreeBSD's dtrace does, for ``-x oformat=json``
- ``probe_list``     writes the probes of ``-l``, as a table and as JSON
- ``streams``        owns all writing of the process: standard output and error, files of ``-o`` and ``freopen()``
- ``effects``        carries out actions on the output: ``system() freopen() ftruncate() setopt()``

Renderers add no facts: from the same events they all write the same information. The text of ``printf()``, the bars of
``quantize()`` and the messages about drops and faults come from :mod:`probekit.consumer.text`.
"""
