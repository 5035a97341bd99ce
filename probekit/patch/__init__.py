"""Changing a live kernel's text, and changing it back.

Knows bytes, addresses and the target; never the language. In reading order:

- ``sites``          what a site is, and a function's entry pad, from live bytes
- ``exits``          every way out of a function
- ``insns``          where a function can be probed instruction by instruction
- ``windows``        several instructions under one jump
- ``refused``        where no trap may be put, and why
- ``ranges``         sorted address ranges
- ``detours``        the jump at a site and the stub that it leads to
- ``stepslot``       the copied instruction of the stop engine
- ``crossmodify``    changes instructions while processors run: INT3, tail, first byte, and all serialise between
- ``hooks``          functions of ours that the kernel calls by itself
- ``edits``          verify, journal, write, read back; undo; restore
- ``merged_writes``  many small writes as few large ones
- ``journal``        the undo journal on disk, complete before the first byte changes
- ``journal_state``  what a journal says is in the guest: the replay of its records
- ``journal_records``  the journal's records as bytes, read without trusting them
- ``journal_payloads``  what the small records say, and their JSON
- ``journal_v1``     journals of format 1, read as those of format 2
- ``recovery_table`` the recovery table: the journal's own bytes, kept in guest memory
"""
