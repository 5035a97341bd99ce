"""Where variables and the scratch memory are: apart from one another, and only what the clauses need."""

from __future__ import annotations

from itertools import pairwise

from probekit.buffers.variables import ENTRY_HEAD, RUN_TIME, THREAD_HEAD, Extent
from probekit.codegen.storage import MAX_STACK_DEPTH, Storage, StorageOptions, plan_storage
from probekit.ir.build import compile_program

START = 8


def planned(text: str, options: StorageOptions | None = None) -> Storage:
    program = compile_program(text)
    return plan_storage(program, program.clauses, options or StorageOptions(), START)


def test_globals_follow_one_another_and_objects_have_gaps() -> None:
    found = planned(
        "struct pair { int a; char b[10]; }; int64_t x; struct pair o; string s; struct pair unused;"
        'fbt::f:entry { x = 1; o.a = 2; s = "a"; }'
    )
    assert found.objects == (1,)
    assert set(found.globals_) == {0, 1, 2}, "the object that no clause uses has no place"
    assert found.globals_[0] == Extent(START, 8)
    assert found.globals_[1] == Extent(16, 16)
    assert found.globals_[2] == Extent(48, 256), "16 bytes after the object belong to nothing"
    assert found.size == 48 + 256


def test_an_integer_has_its_place_even_when_no_clause_uses_it() -> None:
    assert planned("int64_t x; fbt::f:entry { trace(1); }").globals_ == {0: Extent(START, 8)}


def test_threads_have_a_power_of_two_of_entries_that_fit() -> None:
    found = planned("fbt::f:entry { self->a = 1; self->b = execname; }", StorageOptions(dynvarsize=1 << 14))
    table = found.threads
    assert table is not None
    assert table.variables == {0: Extent(THREAD_HEAD, 8), 1: Extent(THREAD_HEAD + 8, 256)}
    assert table.stride == THREAD_HEAD + 8 + 256
    assert table.capacity == 32
    assert table.size <= 1 << 14
    assert table.offset % 64 == 0


def test_vtimestamp_keeps_a_word_for_each_thread() -> None:
    table = planned("fbt::f:entry { trace(vtimestamp); }").threads
    assert table is not None
    assert table.variables == {RUN_TIME: Extent(THREAD_HEAD, 8)}


def test_one_table_serves_all_arrays() -> None:
    found = planned(
        'fbt::f:entry { a[1] = 2; b["x", 3] = "y"; self->c[4] = 5; }',
        StorageOptions(dynvarsize=1 << 16),
    )
    table = found.dynamic
    assert table is not None
    assert found.arrays == {0, 1, 2}
    assert table.key_words == 1 + 256 // 8 + 1
    assert table.stride == ENTRY_HEAD + 8 * table.key_words + 256
    assert table.buckets & (table.buckets - 1) == 0
    assert table.capacity <= table.buckets
    assert table.size <= (1 << 16) + 8 * table.buckets


def test_speculations_have_a_word_each() -> None:
    found = planned("fbt::f:entry { self->s = speculation(); }", StorageOptions(nspec=3))
    assert found.speculations is not None
    assert found.speculations.size == 24
    assert found.size == found.speculations.offset + 24
    assert planned("fbt::f:entry { trace(1); }").speculations is None


def test_parts_of_the_scratch_memory_lie_apart() -> None:
    scratch = planned(
        "this string t; struct pair { int a; char b[10]; }; this struct pair p;"
        'fbt::f:entry { this->t = strtok(execname, "a"); this->p.a = 1; alloca(8); @[execname, stack()] = count();'
        ' trace(cleanpath("/a")); trace(stackdepth); }'
    ).scratch
    starts = [
        scratch.thread_entry,
        scratch.alloca_next,
        scratch.temp,
        scratch.strtok_state,
        scratch.strings,
        scratch.key,
        scratch.bounce,
        scratch.alloca,
        scratch.size,
    ]
    assert all(a < b for a, b in pairwise(starts))
    assert scratch.locals_ == scratch.strtok_state
    assert scratch.locals_ + scratch.locals_size == scratch.strings
    assert scratch.strings + scratch.strings_size == scratch.key
    assert scratch.alloca - scratch.bounce >= 8 * MAX_STACK_DEPTH
    assert scratch.alloca_size == StorageOptions().scratchsize
    inside = sorted((extent.offset, extent.offset + extent.size) for extent in scratch.local_variables.values())
    assert len(inside) == 2
    for (_, end), (start, _) in pairwise(inside):
        assert end < start, "what runs off one reaches nothing of the other"
    assert scratch.locals_ <= inside[0][0]
    assert inside[-1][1] < scratch.strings


def test_memory_for_alloca_is_only_where_it_is_called() -> None:
    assert planned("fbt::f:entry { trace(execname); }").scratch.alloca_size == 0
    assert planned("fbt::f:entry { copyin(arg0, 8); }", StorageOptions(scratchsize=100)).scratch.alloca_size == 104
