"""Change a live kernel's text, and change it back.

This package knows bytes, addresses and the target, never the language. In reading order:

Which places are patched, and which are refused:

- ``sites``          define sites and refusals, and find the site at a function's entry
- ``find_exits``     find every way out of a function, and say for each which kind of exit it is or why it is refused
- ``insn_sites``     find the sites at a function's instructions, or why an instruction is refused
- ``jump_windows``   put several instructions under one jump
- ``refused_text``   look up which functions must not get INT3 or an instruction probe, and why
- ``ranges``         look up sorted address ranges

What is written there:

- ``detours``        build the stub for each kind of site, and the jump or INT3 that leads to it
- ``step_slot``      build the copied instruction that the stop engine sends a vCPU to
- ``hooks``          build the functions that tracepoints and markers call, and the edits that switch markers on

How it is written:

- ``edits``          verify, journal, write, read back; undo
- ``crossmodify``    change instructions while processors run: INT3, tail, first byte, and all serialise between
- ``merged_writes``  merge many small writes into few large ones

How it is undone after a crash:

- ``journal``        write the undo journal on disk, complete before the first byte changes
- ``journal_state``  replay a journal's records: what they say is in the guest
- ``journal_records``  encode the journal's records as bytes, and read them without trusting them
- ``journal_payloads``  define what the small records say, and their JSON
- ``journal_v1``     read journals of format 1 as those of format 2
- ``recovery_table`` find a copy of the journal's bytes in guest memory

A function is refused with a reason in four places: ``sites.entry_site`` (no nop pad, or another tracer is there
already), ``exits.exit_sites`` (an exit without room for a jump), ``insn_sites.instruction_sites`` (an instruction that
cannot be moved) and ``refused_text`` (no trap is allowed there). The ranges of the last one are the kernel's own:
:mod:`probekit.kernel.exclusions` reads them and :mod:`probekit.enabling.text_facts` adds the path of INT3 itself.

A tail jump is recognised by ``exits._classify``, has a kind of its own in ``sites.ExitKind`` and gets its stub from
``detours.compose_stub``.
"""
