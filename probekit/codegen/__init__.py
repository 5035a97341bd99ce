"""IR to x86-64 code that runs inside the guest.

    site stub        push site; call thunk; (the displaced instruction); jump back
    thunk            save registers, interrupts off, recursion guard, the clauses in order, restore
    clause           straight-line code and forward jumps on frame slots
    runtime          the shared routines: ring space, table lookup, strings, loads

A probe whose clauses are all a ``count()`` keyed by the probe alone needs no thunk: its stub has one increment for each
(``inline``).

- ``context``       the facts of one guest and one enabling that code depends on
- ``supported``     finds what this code generator does not have
- ``demand``        what a program needs at run time: services, constants, the site table
- ``storage``       plans where variables and a firing's scratch memory lie
- ``frame``         the frame of one firing on the kernel stack
- ``reg_alloc``     decides which registers of the IR need memory, and which are constants or passed on
- ``operands``      loads and sets the registers of the IR, wherever they are
- ``emit_context``  what the code of every operation of a clause is made with
- ``clause``        one clause's blocks and operations as assembly
- ``record``        frames a record: its room in the ring, its header, its fields, its end
- ``builtin_vars``  built-in variables
- ``arithmetic``    arithmetic, comparison and conversion
- ``calls``         subroutines
- ``memory``        operations on memory and on variables
- ``aggregate``     aggregation updates
- ``inline``        finds clauses that are a single increment, and makes that increment
- ``costs``         measures what clauses cost, where they run
- ``thunk``         the frame around a list of clauses
- ``notifier``      the guest's handler of our INT3
- ``image``         assembles everything at its address
- ``verify``        decodes the finished routines and thunks and checks what they may do
- ``runtime``       the routines in assembly that clauses call
"""
