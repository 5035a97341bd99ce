"""Change a live kernel's text, and change it back.

This package knows bytes, addresses and the target, never the language. In reading order:

- ``sites``          define sites, and find the one at a function's entry
- ``exits``          find the sites at every way out of a function
- ``insn_sites``     find the sites at a function's instructions
- ``jump_windows``   put several instructions under one jump
- ``refused_text``   look up where no trap may be put, and why
- ``ranges``         look up sorted address ranges
- ``detours``        build the jump at a site and the stub that it leads to
- ``step_slot``      build the copied instruction that the stop engine sends a vCPU to
- ``hooks``          build functions of ours that the kernel itself calls
- ``edits``          verify, journal, write, read back; undo
- ``crossmodify``    change instructions while processors run: INT3, tail, first byte, and all serialise between
- ``merged_writes``  merge many small writes into few large ones
- ``journal``        the undo journal on disk, complete before the first byte changes
- ``journal_state``  what a journal says is in the guest: the replay of its records
- ``journal_records``  the journal's records as bytes, read without trusting them
- ``journal_payloads``  what the small records say, and their JSON
- ``journal_v1``     journals of format 1, read as those of format 2
- ``recovery_table`` the recovery table: the journal's own bytes, kept in guest memory
"""
