"""Variables in guest memory, and what one firing works with: one definition for the code and for the host.

The data memory holds, for all CPUs:

    place    a global variable that is no array: an integer's word, a string's bytes, an object
    threads  the ``self->`` variables of each thread, open addressing by its task:
             u64 task (0: free), u64 when it began, the values
    dynamic  the elements of all associative arrays, chained by hash:
             u64 free list (u32 number + 1, u32 changes), u64 entries ever used,
             buckets (u32 lock, u32 first entry's number + 1),
             entries (u32 next entry's number + 1, u32, u64 hash, key words, value)

A key is the variable's number, for ``self->`` arrays the task and when it began, then a word for each integer and
whole words for each string. A task's memory is used again for another task; that it began at another time tells
them apart, so that no thread ever sees the values of one that has ended.
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
    "THREAD_HEAD",
    "DynamicTable",
    "Place",
    "Scratch",
    "ThreadTable",
    "hash_words",
    "round8",
)

HASH_MULTIPLIER = 0x9E3779B97F4A7C15
"""2**64 / golden ratio, odd: Knuth's multiplicative hashing."""

SPECULATION_FREE, SPECULATION_ACTIVE, SPECULATION_ENDED = 0, 1, 2
"""What the word of a speculation says. An ended one is free again when the host has seen to its records."""

RUN_TIME = -1
"""Among the variables of threads the number of one that no script has: the highest ``vtimestamp`` of the thread."""

DYNAMIC_HEAD = 16
ENTRY_HEAD = 16
THREAD_HEAD = 16

_MASK = (1 << 64) - 1


def round8(size: int) -> int:
    """``size`` in whole words."""
    return -(-size // 8) * 8


def hash_words(words: Sequence[int]) -> int:
    """The hash of a key, 64 bits; its highest bits are the bucket's number."""
    value = 0
    for word in words:
        value = ((value ^ word) * HASH_MULTIPLIER) & _MASK
        value = (value >> 32 | value << 32) & _MASK
    return value * HASH_MULTIPLIER & _MASK


@record
class Place:
    """Where one variable is: bytes from the start of what holds it, and how many."""

    offset: int
    size: int


@record
class ThreadTable:
    """``capacity`` (a power of two) entries at ``offset`` of the data memory.

    ``places``: by variable (or :data:`RUN_TIME`), in an entry.
    """

    offset: int
    capacity: int
    stride: int
    places: Mapping[int, Place]

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return self.capacity * self.stride


@record
class DynamicTable:
    """``buckets``: a power of two. ``stride``: bytes of an entry. ``key_words``: of the longest key."""

    offset: int
    buckets: int
    capacity: int
    stride: int
    key_words: int

    @property
    def buckets_offset(self) -> int:
        """The first bucket, in the data memory."""
        return self.offset + DYNAMIC_HEAD

    @property
    def entries_offset(self) -> int:
        """The first entry."""
        return self.buckets_offset + 8 * self.buckets

    @property
    def size(self) -> int:
        """Bytes of the table."""
        return DYNAMIC_HEAD + 8 * self.buckets + self.capacity * self.stride

    def bucket(self, hashed: int) -> int:
        """The offset of the bucket of a hash in the data memory."""
        return (
            self.buckets_offset + 8 * (hashed >> (64 - self.buckets.bit_length() + 1))
            if self.buckets > 1
            else (self.buckets_offset)
        )

    def entry(self, number: int) -> int:
        """The offset of an entry."""
        return self.entries_offset + number * self.stride


@record
class Scratch:
    """One CPU's working memory, in bytes from the block's start.

    ``texts``: strings that operations make; ``locals_``: ``this->`` strings and objects, cleared before each firing
    (``locals_size`` bytes, the state of ``strtok()`` among them at ``token``); ``key``: the key being built;
    ``bounce``: memory on its way; ``temp``: small things; ``thread``: the address of this firing's entry among the
    threads; ``free``: the first byte of ``memory`` that ``alloca()`` has not given out.
    """

    thread: int
    free: int
    temp: int
    token: int
    locals_: int
    locals_size: int
    texts: int
    texts_size: int
    key: int
    bounce: int
    memory: int
    memory_size: int
    size: int
    places: Mapping[int, Place]
