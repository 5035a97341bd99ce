"""Find the lines in a guest's console log that report a damaged kernel.

A tracer must cause none of them: tests compare the list before and after.
"""

from __future__ import annotations

import re

__all__ = ("find_problems", "has_panicked")

_PROBLEMS = re.compile(
    r"|".join(
        (
            r"\bOops\b",
            r"\bBUG: ",
            r"kernel BUG at",
            r"\bWARNING: ",
            r"soft lockup",
            r"hard LOCKUP",
            r"blocked for more than \d+ seconds",
            r"rcu[a-z_]*: .*(?:stall|kthread starved)",
            r"\bCall Trace:",
            r"general protection fault",
            r"invalid opcode:",
            r"int3: 0000",
            r"double fault",
            r"stack segment",
            r"unable to handle (?:kernel|page fault)",
            r"Kernel panic",
            r"scheduling while atomic",
            r"traps: PANIC",
            r"Unexpected int3",
            r"segfault at",
            r"traps: .* (?:trap|general protection)",
            r"unchecked MSR access",
            r"list_(?:add|del) corruption",
            r"ODEBUG:",
            r"refcount_t: ",
        )
    )
)


def find_problems(console: str) -> list[str]:
    """Return the lines of a console log that report a problem, in order."""
    return [line.rstrip() for line in console.splitlines() if _PROBLEMS.search(line)]


def has_panicked(console: str) -> bool:
    """Return whether the kernel has panicked, by a console log."""
    return "Kernel panic" in console
