"""The intermediate representation: one program for both engines.

A clause is a list of basic blocks of typed, flat operations on virtual
registers; control only moves forward. The host evaluator (``interp``) and the
in-guest code generator (``codegen``) both start here.

- ``ops``       the operations and the containers
- ``names``     the built-in variables and subroutines
- ``operands``  which registers each operation reads and writes
- ``build``     a script, or a typed program, to IR: :func:`build.compile_program` is the compiler's entry point
- ``lower``     expressions to operations
- ``actions``   a checked action to what the consumer reads
- ``verify``    what every program must satisfy
- ``pprint``    IR as text, for ``-S`` and the golden tests
"""
