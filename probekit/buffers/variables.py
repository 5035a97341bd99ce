"""Lay out variables in guest memory, and the scratch memory of one firing. Generated code and the host both use it.

The data memory holds, for all CPUs:

    extent   a global variable that is no array: an integer's word, a string's bytes, an object
    threads  the ``self->`` variables of each thread, open addressing by its task:
             u64 task (0: free), u64 when it began, the values
    dynamic  the elements of all associative arrays, chained by hash:
             u64 free list (u32 first entry's number + 1, u32 count of changes), u64 entries ever used,
             buckets (u32 lock, u32 first entry's number + 1),
             entries (u32 next entry's number + 1, u32, u64 hash, key words, value)

The count of changes makes a compare-and-exchange of the free list fail when entries went and came back meanwhile (ABA).
A key is the variable's number, for ``self->`` arrays the task and when it began, then a word for each integer and
whole words for each string. The kernel uses a task's memory again for another task. The two began at different times,
so no thread ever sees the values of one that has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probekit.records import record

__all__ = (
    "DYNAMIC_HEAD",
    "ENTRY_HEAD",
    "HASH_MULTIPLIER",
    "RUN_TIME",
    "SPECULATION_ACTIVE",
    "SPECULATION_ENDED",
    "SPECULATION_FREE",
    "SPECULATION_HOST",
    "SPECULATION_MANY",
    "THREAD_HEAD",
    "DynamicTable",
    "Extent",
    "ScratchLayout",
    "ThreadTable",
    "hash_words",
    "round8",
)

HASH_MULTIPLIER = 0x9E3779B97F4A7C15
"""2**64 / golden ratio, odd: Knuth's multiplicative hashing (The Art of Computer Programming, 6.4)."""

SPECULATION_FREE, SPECULATION_ACTIVE, SPECULATION_ENDED, SPECULATION_MANY, SPECULATION_HOST = range(5)
"""The values of a speculation's word, as DTrace has them (``dtrace_speculation_state_t``).

``ACTIVE``: it is taken, and has no record. The address of a CPU's block: only that CPU has speculated. ``HOST``: only
the host's own probes have. ``MANY``: more than one of these have. One that ends with the records of the CPU that ends
it, or with none, is free at once. Any other is ``ENDED``, and the host frees it after it has processed its records.
"""

RUN_TIME = -1
"""The number of a thread variable that no script has: it holds the thread's highest ``vtimestamp``."""

DYNAMIC_HEAD = 16
"""Bytes of the dynamic table before its buckets."""
ENTRY_HEAD = 16
"""Bytes of a dynamic table's entry before its key."""
THREAD_HEAD = 16
"""Bytes of a thread's entry before its values."""

_MASK = (1 << 64) - 1


def round8(size: int) -> int:
    """Round ``size`` up to whole words, in bytes."""
    return -(-size // 8) * 8


def hash_words(words: Sequence[int]) -> int:
    """Return the 64-bit hash of a key; its highest bits are the bucket's number."""
    value = 0
    for word in words:
        value = ((value ^ word) * HASH_MULTIPLIER) & _MASK
        value = (value >> 32 | value << 32) & _MASK
    return value * HASH_MULTIPLIER & _MASK


@record
class Extent:
    """Where a variable is."""

    offset: int
    """Bytes from the start of the data memory, the thread's entry or the scratch memory that it is in."""
    size: int
    """Bytes of the variable."""


@record
class ThreadTable:
    """The table of the threads' variables in the data memory."""

    offset: int
    """Where it begins."""
    capacity: int
    """How many entries it has: a power of two."""
    stride: int
    """Bytes of an entry."""
    variables: Mapping[int, Extent]
    """Where each variable (or :data:`RUN_TIME`) is in an entry."""

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return self.capacity * self.stride


@record
class DynamicTable:
    """The table of the associative arrays' elements in the data memory."""

    offset: int
    """Where it begins."""
    buckets: int
    """How many buckets it has: a power of two."""
    capacity: int
    """How many entries it has."""
    stride: int
    """Bytes of an entry."""
    key_words: int
    """Words of the longest key."""

    @property
    def buckets_offset(self) -> int:
        """Offset of the first bucket in the data memory."""
        return self.offset + DYNAMIC_HEAD

    @property
    def entries_offset(self) -> int:
        """Offset of the first entry in the data memory."""
        return self.buckets_offset + 8 * self.buckets

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return DYNAMIC_HEAD + 8 * self.buckets + self.capacity * self.stride

    def bucket(self, hashed: int) -> int:
        """Return the offset of a hash's bucket in the data memory."""
        return (
            self.buckets_offset + 8 * (hashed >> (64 - self.buckets.bit_length() + 1))
            if self.buckets > 1
            else (self.buckets_offset)
        )

    def entry(self, number: int) -> int:
        """Return the offset of an entry in the data memory."""
        return self.entries_offset + number * self.stride


@record
class ScratchLayout:
    """Where everything is in the scratch memory of one firing: offsets in bytes from its start."""

    thread_entry: int
    """The address of this thread's entry in the table of threads; 0 until it has been looked up."""
    alloca_next: int
    """The address of the first byte that ``alloca()`` has not given out."""
    temp: int
    """Small temporary values: digits, words that survive a call, the registers for the kernel's unwinder."""
    strtok_state: int
    """The rest of ``strtok()``'s string: a word that is not 0 when there is a rest, then the string."""
    locals_: int
    """The strings and objects of ``this->``, and the state of ``strtok()``. All are zero when a firing begins."""
    locals_size: int
    """Bytes of ``locals_``."""
    strings: int
    """The strings that operations make."""
    strings_size: int
    """Bytes of ``strings``."""
    key: int
    """The key that is being built."""
    bounce: int
    """The bounce buffer, for memory that is copied in two steps."""
    alloca: int
    """The memory that ``alloca()`` gives out."""
    alloca_size: int
    """Bytes of ``alloca``; 0 where no clause needs it."""
    size: int
    """Bytes of the whole scratch memory."""
    local_variables: Mapping[int, Extent]
    """Where each string or object of ``this->`` is, by the variable's index."""
