"""The D language: from a script's text to a checked program. Knows types, and no guest.

The passes, in order (``check.check_program`` runs all; ``ir.build`` goes on):

1. ``source``       text, offsets, lines
2. ``scan``         blanks comments and control lines; ``#pragma D option`` is read here
3. ``parse``        tokens (grammar/*.lark, macro variables replaced) to ``ast``
4. ``check``        names, types, prototypes: ``ast`` to ``typed`` (``scope``, ``exprs``, ``calls``)
5. ``split``        clauses with conditional actions become several
6. ``diagnostics``  what was found wrong, all of it, as data

What only a guest's kernel knows is asked of ``kernelside`` and converted by ``kerneltypes`` when it is
reached: types by name, symbols (``symbols``), the types of ``args[]`` (``arguments``).

Tables that the language grows by: ``words`` (keywords, type names), ``builtins``
(variables, functions, aggregating functions), ``types`` (D's types are C's, LP64).

What D has and probekit has not is refused by its name; nothing is ignored or approximated.
"""
