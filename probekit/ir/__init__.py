"""The intermediate representation: one program for both engines.

A clause is a list of basic blocks of typed, flat operations on virtual
registers; control only moves forward. The host evaluator (``interp``) and the
in-guest code generator (``codegen``) both start here.

- ``ops``     the operations and the containers
- ``build``   typed AST to IR
- ``verify``  what every program must satisfy
- ``pprint``  IR as text, for ``-S`` and the golden tests
"""
