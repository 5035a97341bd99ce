"""x86-64 instructions: decode, assemble, relocate.

The only package that uses capstone, keystone and iced. It knows bytes and
addresses, and no guest.

- ``decode``    facts about one instruction; a fast scan of a function's control flow (iced)
- ``assemble``  text to bytes (keystone), each line decoded again and compared with what was asked
- ``asmtext``   the assembly text that is accepted, parsed before keystone sees it
- ``compare``   compares a decoded instruction with the one that was asked for
- ``access``    which memory an instruction has touched, from the registers after it
- ``relocate``  the same effect from another address (iced's BlockEncoder), or a refusal with the reason
- ``listing``   machine code as text, for people
"""
