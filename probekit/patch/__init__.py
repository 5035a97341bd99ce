"""Changing a live kernel's text, and changing it back.

Knows bytes, addresses and the target; never the language. In reading order:

- ``sites``    where a function can be probed: its entry pad and every way out, from live bytes
- ``insns``    where it can be probed instruction by instruction
- ``windows``  several instructions under one jump
- ``refused``  where no trap may be put, and why
- ``ranges``   sorted address ranges
- ``detours``  the jump at a site and the stub it leads to; the copied instruction of the stop engine
- ``crossmodify`` changing instructions while processors run: INT3, tail, first byte, and everybody serialises between
- ``hooks``    functions of ours that the kernel calls by itself
- ``edits``    verify, journal, write, read back; undo; restore
- ``merged``   many small writes as few large ones
- ``journal``  the undo journal on disk, complete before the first byte changes
- ``records``  the journal's records as bytes, read without trusting them
- ``lock``     one probekit per guest
- ``quiesce``  when nothing can still execute what is about to be freed
"""
