"""A kernel's types in a script, without a guest: what is found and refused, what it costs, what a hostile one does."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.errors import SymbolError
from probekit.ir.build import compile_program
from probekit.ir.names import BUILTINS
from probekit.ir.verify import verify_program
from probekit.kernel.btf import Btf
from probekit.lang.diagnostics import CompileError
from probekit.lang.kerneltypes import KernelTypes
from probekit.lang.types import (
    EnumType,
    FloatType,
    StructType,
    alignof,
    bit_place,
    sizeof,
)
from tests.interp.worlds import World
from tests.kernel.fakes import BtfWriter
from tests.support.fake_kernel import FakeKernel, compiled, sample


def refusal(text: str, kernel: FakeKernel | None = None) -> tuple[str, str]:
    """Tag and whole text of the first fault."""
    with pytest.raises(CompileError) as caught:
        compiled(text, kernel)
    return caught.value.diagnostics[0].tag, caught.value.text()


def task() -> StructType:
    found = KernelTypes(FakeKernel()).tagged("struct", "task")
    assert isinstance(found, StructType)
    return found


def test_a_struct_has_its_members_sizes_and_alignment() -> None:
    t = task()
    assert str(t) == "struct task" and t.size == 112 and alignof(t) == 16
    kinds = {m.name: str(m.type) for m in t.members if m.name}
    assert kinds == {
        "next": "struct task *",
        "comm": "char [16]",
        "pid": "pid_t",
        "colour": "enum colour",
        "ops": "struct ops",
        "size": "enum tiny",
        "wide": "enum wide",
        "name": "char *",
        "big": "__int128",
        "packed": "unsigned int",
        "usage": "unsigned char",
        "tail": "char [0]",
    }
    flag = t.find("flag_b")
    assert flag is not None and (flag.offset, flag.bit_size) == (192 + 33, 3)
    sizes = {name: found.type for name in ("size", "wide", "big") if (found := t.find(name)) is not None}
    assert isinstance(sizes["size"], EnumType) and sizeof(sizes["size"]) == 1
    assert isinstance(sizes["wide"], EnumType) and sizeof(sizes["wide"]) == 8
    assert isinstance(sizes["big"], FloatType) and sizeof(sizes["big"]) == 16


def test_a_bit_field_across_two_units() -> None:
    packed = task().find("packed")
    assert packed is not None
    at, unit, shift = bit_place(packed)
    assert (at, unit, shift) == (796 // 8, 16, 4) and at * 8 + shift == packed.offset


def test_only_types_that_are_used_are_made() -> None:
    fresh = FakeKernel()
    assert fresh.btf is not None
    before = set(fresh.btf._made)
    compiled("BEGIN { x = 1; trace(x); this->pid = pid; a[x] = 2; }", fresh)
    assert set(fresh.btf._made) == before
    compiled("BEGIN { trace(sizeof (struct ops)); }", fresh)
    assert len(set(fresh.btf._made) - before) == 1


def test_a_type_is_found_in_its_module_by_a_backquote() -> None:
    assert refusal("BEGIN { trace(sizeof (struct other`task)); }")[0] == "D_TYPE_ERR"
    assert refusal("BEGIN { trace(sizeof (other`pid_t)); }")[0] in ("D_IDENT_UNDEF", "D_TYPE_ERR")
    assert refusal("BEGIN { trace(other`first.pid); }")[0] == "D_IDENT_UNDEF"


@pytest.mark.parametrize(
    ("script", "tag"),
    [
        ("BEGIN { trace(`nosuch); }", "D_IDENT_UNDEF"),
        ("BEGIN { trace(`ticks); }", "D_SYM_NOTYPES"),
        ("BEGIN { trace(&`ticks + 1); }", "D_OP_INCOMPAT"),
        ("BEGIN { trace(`hidden); }", "D_SYM_NOTYPES"),
        ("BEGIN { trace(((struct task *)arg0)->nosuch); }", "D_TYPE_MEMBER"),
        ("BEGIN { trace(((struct lost *)arg0)->x); }", "D_OP_INCOMPLETE"),
        ("BEGIN { trace(((struct task *)arg0)->ops.lost->x); }", "D_OP_INCOMPLETE"),
        ("BEGIN { trace(&((struct task *)arg0)->flag_a); }", "D_ADDROF_BITFIELD"),
        ("BEGIN { trace(offsetof (struct task, flag_a)); }", "D_OFFSETOF_BITFIELD"),
        ("BEGIN { trace((nosuch_t)arg0); }", "D_SYNTAX"),
        ("nosuch_t x; BEGIN { }", "D_SYNTAX"),
        ("fbt::do_it:entry { trace(args[2]); }", "D_ARGS_IDX"),
        ("fbt::d*:entry { trace(args[0]); }", "D_ARGS_MULTI"),
        ("fbt::do_it:entry, fbt::differs:entry { trace(args[0]); }", "D_ARGS_MULTI"),
        ("fbt::assembly:entry { trace(args[0]); }", "D_ARGS_TYPE"),
        ("fbt::by_value:entry { trace(args[0]); }", "D_ARGS_TYPE"),
        ("fbt::nothing:entry { trace(args[0]); }", "D_PDESC_ZERO"),
    ],
)
def test_what_the_kernels_types_do_not_have_is_refused(script: str, tag: str) -> None:
    assert refusal(script)[0] == tag


@pytest.mark.parametrize(
    "script",
    [
        "struct task { int own; }; BEGIN { trace(((struct task *)arg0)->own); }",
        "typedef char pid_t2; BEGIN { pid_t = 3; trace(pid_t * 2); trace((pid_t) + 1); }",
        "enum mine { RED2 = 9 }; BEGIN { trace(RED2); }",
        "inline int RED = 7; BEGIN { trace(RED); }",
        "struct mine { struct vector v; int n; }; BEGIN { trace(sizeof (struct mine) + offsetof(struct mine, n)); }",
        "BEGIN { print(*(struct task *)arg0); }",
        "BEGIN { this->p = (struct task *)arg0; trace(this->p->big); }",
        "translator struct point < struct task *T > { x = T->pid; y = T->usage; };"
        "fbt::do_it:entry { trace(xlate <struct point> (args[0]).x); }",
    ],
)
def test_the_kernels_types_and_the_scripts_own_stand_together(script: str) -> None:
    assert verify_program(compiled(script)) == []


def test_the_scripts_own_names_come_first() -> None:
    program = compiled("struct task { long a; int own; }; BEGIN { trace(offsetof (struct task, own)); }")
    assert verify_program(program) == []


def test_without_types_only_types_are_refused() -> None:
    bare = FakeKernel(data=None)
    for script in (
        "BEGIN { trace(((struct task *)arg0)->pid); }",
        "BEGIN { trace(sizeof (struct task)); }",
        "BEGIN { trace(curthread->pid); }",
    ):
        tag, text = refusal(script, bare)
        assert tag in ("D_OP_INCOMPLETE", "D_SIZEOF_TYPE") and "this kernel carries no types (BTF)" in text
    compiled("BEGIN { trace(*(long *)&`ticks); trace((long)&`hidden); trace(pid); sym((uintptr_t)`do_it); }", bare)


def test_without_a_kernel_it_is_known_that_one_is_missing() -> None:
    for script, needs in (
        ("BEGIN { trace(curthread->pid); }", True),
        ("BEGIN { trace(`x); }", True),
        ("BEGIN { trace((foo_t)1); }", True),
        ("foo_t x; BEGIN { }", True),
        ("fbt::f:entry { trace(args[0]); }", True),
        ("BEGIN { trace(NR_CPUS); }", True),
        ("BEGIN { trace(1 +); }", False),
        ("BEGIN { @ = count(1); }", False),
    ):
        with pytest.raises(CompileError) as caught:
            compile_program(script)
        assert caught.value.needs_kernel is needs, script


# Hostile kernels.


def _loops() -> bytes:
    w = BtfWriter()
    integer = w.int("int", 4)
    self_type = w.next_id()
    w.struct("self", 8, [("", self_type, 0), ("", self_type, 0), ("inner", self_type, 0)])
    proto = w.next_id()
    w.raw("", 13, 3, proto + 1, *[w.string("a"), proto + 1] * 3)
    w.ptr(proto)
    w.struct("calls", 8, [("f", proto + 1, 0)])
    pointer = w.next_id()
    w.ptr(pointer)
    w.struct("points", 8, [("p", pointer, 0)])
    array = w.next_id()
    w.array(array, 2)
    w.struct("arrays", 8, [("a", array, 0)])
    w.struct("outside", 8, [("x", integer, 64)])
    w.struct("wide_bits", 8, [("x", integer, 0, 60)])
    many = w.struct("l0", 8, [(f"m{i}", integer, 0) for i in range(10)])
    for level in range(1, 8):
        many = w.struct(f"l{level}", 8, [(f"m{i}", many, 0) for i in range(10)], union=level == 1)
    w.struct("empty", 0, [])
    w.struct("zeros", 8, [("z", w.array(w.next_id() - 1, 0x7FFFFFFF), 0)])
    loop = w.next_id()
    w.raw("round", 8, 0, loop + 1)
    w.raw("about", 8, 0, loop)
    w.struct("aliases", 8, [("r", loop, 0)])
    return w.data()


@pytest.mark.parametrize(
    "script",
    [
        "BEGIN { trace(((struct self *)arg0)->nosuch); }",
        "BEGIN { print(*(struct self *)arg0); }",
        "BEGIN { print(((struct self *)arg0)->inner.inner); }",
        "struct mine { struct self s; }; BEGIN { trace(sizeof (struct mine)); }",
        "BEGIN { print(*(struct calls *)arg0); }",
        "BEGIN { trace((long)((struct points *)arg0)->p); }",
        "BEGIN { print(*(struct arrays *)arg0); }",
        "BEGIN { trace(((struct outside *)arg0)->x); }",
        "BEGIN { trace(((struct wide_bits *)arg0)->x); }",
        "BEGIN { print(*(struct l7 *)arg0); }",
        "BEGIN { trace(((struct l7 *)arg0)->nosuch); }",
        "BEGIN { print(*(struct zeros *)arg0); }",
        "BEGIN { trace((round)arg0); }",
        "BEGIN { trace(((struct aliases *)arg0)->r); }",
    ],
)
def test_types_that_contain_themselves_end(script: str) -> None:
    begin = time.monotonic()
    try:
        program = compiled(script, FakeKernel(data=_loops()))
    except CompileError:
        program = None
    assert time.monotonic() - begin < 5
    assert program is None or verify_program(program) == []


_SCRIPTS = (
    "BEGIN { print(*(struct task *)arg0); trace(((struct task *)arg0)->next->flag_b); trace(GREEN); }",
    "fbt::do_it:entry { trace(args[0]->comm); trace(args[1]); trace((pid_t)arg0); }",
    "BEGIN { trace(`running->ops.call); trace(`counters.at[1]); trace(`first.pid); trace(sizeof (struct vector)); }",
    "struct mine { struct task t; }; BEGIN { print((struct ops *)arg0); trace(offsetof (struct mine, t)); }",
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8), st.data())
def test_damaged_types_are_a_compile_error_at_worst(edits: list[tuple[int, int]], data: st.DataObject) -> None:
    raw = bytearray(sample())
    for at, value in edits:
        raw[24 + at % (len(raw) - 24)] = value
    try:
        kernel = FakeKernel(data=bytes(raw))
    except SymbolError:
        return  # found wrong when it was loaded
    script = data.draw(st.sampled_from(_SCRIPTS))
    begin = time.monotonic()
    try:
        program = compiled(script, kernel)
    except CompileError:
        return
    finally:
        assert time.monotonic() - begin < 10
    assert verify_program(program) == []


_KERNEL_WORDS = """BEGIN fbt::do_it:entry fbt::d*:entry { } ( ) [ ] ; , . -> ? : / - * & == = ++ sizeof offsetof
    stringof
    struct union enum task ops point vector lost tiny colour pid_t GREEN BIG vmlinux`pid_t vmlinux`struct vmlinux`task
    other`pid_t vmlinux`enum `first `running `ticks `do_it `nosuch m` ` vmlinux`first args args[0] args[9] curthread
    trace print xlate inline typedef extern self this translator provider const int unsigned x y this->p 0 1 arg0 <
    > comm flag_a next packed (pid_t)arg0 (struct task *)arg0 sizeof(pid_t) exit(0)""".split()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_KERNEL_WORDS), max_size=25), st.booleans())
def test_any_words_about_a_kernel_compile_or_are_refused(words: list[str], types: bool) -> None:
    text = " ".join(words)
    try:
        program = compiled(text, FakeKernel() if types else FakeKernel(data=None))
    except CompileError as error:
        assert error.text()
        return
    assert verify_program(program) == []


_UNARY = "- ! ~ * & (int) (string) (struct_task_p) sizeof stringof".split()
_MEMBERS = "pid next comm flag_a at".split()
_EXPRESSIONS = st.recursive(
    st.sampled_from(
        [
            *("args[0]", "args[1]", "`first", "`running", "`counters", "&`ticks", "`do_it", "curthread", "GREEN", "1"),
            *("arg0", "this->p", "*args[0]", '"s"', "((struct task *)arg0)", "`first.comm", "`first.big"),
            *("`first.packed", "`first.tail", "`counters.at", "`first.ops.call", "`first.wide"),
        ]
    ),
    lambda e: st.one_of(
        st.builds("({} {} {})".format, e, st.sampled_from("+ - * / & == < && , =".split()), e),
        st.builds("{}({})".format, st.sampled_from(_UNARY), e),
        st.builds("({}){}{}".format, e, st.sampled_from((".", "->")), st.sampled_from(_MEMBERS)),
        st.builds("({})[{}]".format, e, e),
        st.builds("({} ? {} : {})".format, e, e, e),
    ),
    max_leaves=5,
)


@settings(max_examples=500, deadline=None)
@given(_EXPRESSIONS, st.sampled_from(("trace", "print", "@ = sum", "tracemem_", "printf_")))
def test_any_expression_about_a_kernel_runs_or_is_refused(expression: str, action: str) -> None:
    """It compiles or is refused; what compiles runs, on memory that holds anything."""
    statement = {
        "tracemem_": f"tracemem({expression}, 8)",
        "printf_": f'printf("%d %s", {expression}, {expression})',
    }.get(action, f"{action}({expression})")
    text = f"typedef struct task *struct_task_p; fbt::do_it:entry {{ this->p = args[0]; {statement}; }}"
    try:
        program = compiled(text)
    except CompileError as error:
        assert error.text()
        return
    assert verify_program(program) == []
    world = World(program, builtins={n: b"x" if b.kind == "string" else 1 for n, b in BUILTINS.items()})
    world.state.memory.read_guest = lambda addr, size: (
        bytes((addr + i) % 251 for i in range(size)) if addr >> 63 else None
    )
    world.run()


def test_a_real_name_is_found_by_its_string_only() -> None:
    btf = Btf(sample())
    big = btf.enumerator("BIG")
    assert big is not None and big[0] == 1 | 2 << 32
    assert btf.enumerator("task") is None and btf.enumerator("nosuch") is None and btf.enumerator("") is None
    assert set(btf._made) == {i for i in btf._made if btf._sections.kind(i) == 19}
