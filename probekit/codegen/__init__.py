"""IR to x86-64 code that runs inside the guest.

    site stub        push site; call thunk; (the displaced instruction); jump back
    thunk            save registers, interrupts off, recursion guard, the clauses in order, restore
    clause           straight-line code and forward jumps on frame slots
    runtime          the few shared routines: ring space, table lookup, string copy and compare

A probe whose clauses are all constant-keyed ``count()`` needs no thunk: its stub
holds one increment for each (``inline``).

- ``context``    the facts of one guest and one enabling that code depends on
- ``demand``     what a program needs at run time: constants, the site table
- ``inline``     which clauses are a single increment, and that increment
- ``values``     which registers need memory, and which are constants or passed on
- ``operands``   reading and setting registers, wherever they are
- ``clause``     one clause's blocks and ops as assembly
- ``aggregate``  aggregation updates as assembly
- ``runtime``    the shared routines; others in ``texts searches paths numbers jsontext
  jsonscan addresses loads dynamic``
- ``acting``     which actions of a clause do something to the guest
- ``destructive``  waiting, signals, writing to a program's memory, panic
- ``thunk``      the frame around a list of clauses
- ``costs``      what clauses cost, measured where they run
- ``frame``      the frame of one firing on the kernel stack
- ``routines``   where the shared routines are
- ``notifier``   the guest's handler of our INT3
- ``image``      everything assembled at its address
"""
