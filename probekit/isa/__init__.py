"""Decode, assemble and relocate x86-64 instructions.

This is the only package that uses capstone, keystone and iced. It knows bytes and
addresses, and no guest.

- ``decode``  give facts about one instruction, and scan a function's control flow fast (iced)
- ``assemble``  turn text into bytes (keystone), decode each line again and compare it with the text
- ``asm_syntax``  parse the assembly text before keystone sees it
- ``compare``  tell whether a decoded instruction is the one that was asked for
- ``access``  tell what memory an instruction has touched, from the registers after it
- ``follow``  find where a tree of comparisons leads for a given value
- ``relocate``  move instructions to another address (iced's BlockEncoder), or refuse with the reason
- ``disassemble``  write machine code as text for people
"""
