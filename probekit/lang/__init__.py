"""The D language: from a script's text to a checked program. It sees a guest's kernel only through ``kernelside``.

The function ``check.check_program`` runs the passes in this order, and ``probekit.ir.build`` lowers the result:

    scan            blanks comments and control lines, reads ``#pragma D option``
    parse           text to syntax tree
    declare         declarations, inlines, translators, providers: names and types
    exprs, actions  clauses: syntax tree to typed tree
    action_order    refuses actions in an order that a clause cannot have
    pragmas         checks the other ``#pragma D`` lines
    split           splits clauses that record data inside an ``if``

The passes refuse what probekit does not have of D, with a message that names it. They ignore and approximate nothing.
The modules:

- ``access``         checks ``&``, ``*``, ``[]``, ``.``, ``->``, ``sizeof``, ``offsetof``, ``stringof``
- ``action_order``   checks the order of actions in a clause that commits or speculates
- ``actions``        checks actions, such as ``trace()`` and ``printf()``
- ``aggcalls``       checks aggregations, and the actions that name them
- ``arguments``      checks ``args[n]``: types from the functions' prototypes
- ``arith``          computes with constants, 64 bits
- ``assign``         checks assignment, ``++`` and ``--``
- ``ast``            the syntax tree: statements and items of a script
- ``ast_exprs``      the syntax tree: expressions
- ``ast_types``      the syntax tree: types as written
- ``attributes``     stability attributes
- ``builtins``       tables of D's own variables and functions
- ``check``          the front end as one function: a script's text to a checked program
- ``constants``      the integer constants that DTrace's libraries define on Linux
- ``declare``        checks what stands outside of clauses
- ``diagnostics``    the faults of a script, as data and as text
- ``exprs``          checks expressions: dispatches to the modules for each kind
- ``formatcheck``    checks ``printf()`` formats against their arguments
- ``functions``      checks calls: prototypes and subroutines
- ``kernelside``     what a program may ask the guest's kernel for
- ``kerneltypes``    converts a kernel's types to D's
- ``keywords``       keywords, and words that name types
- ``library``        what DTrace's own D libraries declare
- ``operators``      checks arithmetic, comparison, logic, ``?:``, ``,`` and casts
- ``parse``          the parser (a package): grammar by Lark, tree builder, literals, macro variables
- ``pragmas``        checks ``#pragma D attributes|binding|depends_on``
- ``scan``           prepares a script for the lexer
- ``scope``          the names of a program so far
- ``shapes``         describes types for ``print()``
- ``source``         a script's text, and places in it
- ``split``          splits clauses that record data inside an ``if``
- ``symbols``        checks kernel symbols, such as `` `jiffies ``
- ``translators``    checks translators and ``xlate``
- ``typed``          the checked program: statements and clauses
- ``typed_exprs``    the checked program: expressions
- ``types``          D's types, and C's conversions between them
- ``typetable``      resolves types as written
- ``values``         checked expressions: typed form, type and place; what fits what
- ``variables``      checks names of variables, elements, inlines
"""
