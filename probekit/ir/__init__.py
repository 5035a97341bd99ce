"""The intermediate representation: one program for both engines.

A clause is a list of basic blocks of typed, flat operations on virtual registers; control only moves forward. The
host's evaluator (``interp``) and the code generator for the guest (``codegen``) both start here.

- ``ops``       the operations and the containers
- ``names``     the built-in variables and subroutines
- ``operands``  which registers each operation reads and writes
- ``build``     a script, or a typed program, to IR: :func:`build.compile_program` is the compiler's entry point
- ``blocks``    builds the basic blocks of a clause
- ``lower``     lowers expressions to operations
- ``actions``   turns a checked action into what the consumer reads
- ``verify``    what every program must satisfy
- ``pprint``    IR as text, for ``-S`` and the golden tests
"""
