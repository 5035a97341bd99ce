"""Renderers: the consumer's neutral events as text for people and JSON for programs.

- ``api``         what a renderer is
- ``text``        dtrace(1)'s text: the header, a line for each record, aggregations
- ``histogram``   the text of ``quantize()``
- ``json_lines``  ``--json``: one object a line
- ``listing``     ``-l``, as a table and as JSON

Renderers add no facts; two of them given the same events say the same.
"""
