"""What D's subroutines, variables and memory do, each as one expression or one small program."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import FaultKind
from tests.interp.worlds import run, world

_TEXTS = [
    ('basename("/a/b/c/")', b"c"),
    ('basename("/")', b"/"),
    ('basename("")', b"."),
    ('dirname("/a/b/c/")', b"/a/b"),
    ('dirname("a")', b"."),
    ('dirname("/a")', b"/"),
    ('cleanpath("/a/./b//../c")', b"/a/c"),
    ('cleanpath("/../a")', b"/a"),
    ('cleanpath("/a/..")', b"/"),
    ('cleanpath("a/./b")', b"a/b"),
    ('strjoin("ab", "cd")', b"abcd"),
    ("strchr(\"hello\", 'l')", b"llo"),
    ("strchr(\"hello\", 'z')", b""),
    ("strrchr(\"hello\", 'l')", b"lo"),
    ('strstr("hello", "ll")', b"llo"),
    ('strstr("hello", "")', b"hello"),
    ('substr("abcdef", 2)', b"cdef"),
    ('substr("abcdef", 2, 2)', b"cd"),
    ('substr("abcdef", -2)', b"ef"),
    ('substr("abcdef", 1, -2)', b"bcd"),
    ('substr("abcdef", 9)', b""),
    ('substr("abcdef", -9)', b"abcdef"),
    ('substr("hello", -10)', b"hello"),
    ('substr("hello", -2147483647)', b"hello"),
    ('substr("hello", -10, 5)', b""),
    ('substr("hello", -10, -1)', b""),
    ('substr("", -10)', b""),
    ('substr("abcdef", -9, 5)', b"ab"),
    ('strtok("/a//b", "/")', b"a"),
    ('strtok("", "/")', b""),
    ("lltostr(-12)", b"-12"),
    ("lltostr(255, 16)", b"0xff"),
    ("lltostr(8, 8)", b"010"),
    ("lltostr(5, 2)", b"101"),
    ("lltostr(0, 16)", b"0x0"),
    ('toupper("aB1")', b"AB1"),
    ('tolower("aB1")', b"ab1"),
    ('json("{\\"a\\": [1, {\\"b\\": \\"x\\"}]}", "a[1].b")', b"x"),
    ('json("{\\"a\\": [1, {\\"b\\": \\"x\\"}]}", "a[1]")', b'{"b": "x"}'),
    ('json("{\\"a\\": 1}", "b")', b""),
    ("stringof(execname)", b"bash"),
    ('pid == 7 ? "seven" : "other"', b"seven"),
]


def _text(expr: str) -> bytes:
    record = run(f"BEGIN {{ trace({expr}); }}").record
    assert record is not None
    return record.split(b"\0", 1)[0]


@pytest.mark.parametrize(("expr", "expected"), _TEXTS)
def test_text(expr: str, expected: bytes) -> None:
    assert _text(expr) == expected


_NUMBERS = [
    ('strlen("hello")', 5),
    ('index("foobarbaz", "ba")', 3),
    ('index("foobarbaz", "ba", 4)', 6),
    ('index("foo", "x")', -1),
    ('rindex("foobarbaz", "ba")', 6),
    ('rindex("foobarbaz", "ba", 5)', 3),
    ("htons(0x1234)", 0x3412),
    ("htonl(0x12345678)", 0x78563412),
    ("ntohll(0x1122334455667788)", 0x8877665544332211 - (1 << 64)),
    ("getmajor(0x800001)", 8),
    ("getminor(0x800001)", 1),
    ('strtoll("0x1f", 16)', 31),
    ('strtoll("-12abc")', -12),
    ("progenyof(pid)", 1),
    ('"abc" < "abd"', 1),
    ('"abc"[1]', ord("b")),
    ("sizeof (int) + sizeof (char *) + sizeof (string)", 4 + 8 + 256),
    ("1 ^^ 1", 0),
    ("'ab'", 0x6162),
    ("(char)200", -56),
    ("NULL == 0", 1),
    ("EINVAL", 22),
    ("SIGKILL", 9),
]


@pytest.mark.parametrize(("expr", "expected"), _NUMBERS)
def test_number(expr: str, expected: int) -> None:
    record = run(f"BEGIN {{ trace((int64_t)({expr})); }}").record
    assert record is not None
    assert int.from_bytes(record, "little", signed=True) == expected


_DECLARED = """
struct pt { int x; int y; unsigned b:3; int c:5; char s[8]; struct pt *next; string t; };
typedef struct pt pt_t; union u { int i; char c[4]; }; enum color { RED, GREEN = 5, BLUE };
pt_t p; pt_t row[3]; int arr[4]; union u uu; int a[int, string]; pt_t objects[int];
string names[string]; self string ss;
translator pt_t < int v > { x = v; y = v * 2; t = "made"; };
inline int ADD[int q, int r] = q + r; inline string NAME = "nm";
"""
_PROGRAMS = [
    ("p.x = 1; p.y = p.x + 1;", "p.y", 2),
    ("p.b = 13; p.c = -3;", "p.b * 100 + p.c", 497),
    ("row[2].x = 7; row[1] = row[2];", "row[1].x", 7),
    ("arr[3] = 4; arr[3] += 5; arr[3]++;", "arr[3]", 10),
    ("uu.i = 0x41424344;", "uu.c[0]", 0x44),
    ("this->p = (pt_t *)alloca(sizeof (pt_t)); this->p->y = 9;", "(*this->p).y", 9),
    ("this->i = (int *)alloca(16); this->i[2] = 5; this->j = this->i + 2;", "*this->j + (this->j - this->i)", 7),
    ("this->i = (int *)alloca(16); *this->i = 5; this->k = (this->i)++;", "this->i - this->k", 1),
    ('this->c = (char *)alloca(8); bcopy("hi", this->c, 3);', "strlen(this->c) + this->c[1]", 2 + ord("i")),
    ('a[1, "x"] = 3; a[1, "x"] += 4;', 'a[1, "x"] + a[2, "x"]', 7),
    ('a[1, "x"] = 3; this->v = a[1, "x"]++;', 'this->v * 10 + a[1, "x"]', 34),
    ("objects[4].x = 6;", "objects[4].x", 6),
    ('names["k"] = "abc"; names["k"] = 0;', 'strlen(names["k"])', 0),
    ('self->ss = "abc"; self->n[1] = 2;', "strlen(self->ss) + self->n[1]", 5),
    ("x = 5; x <<= 2; x |= 1;", "x", 21),
    ("y++; y += 2; --y;", "y", 2),
    ("", "(xlate <pt_t> (4)).y + (xlate <pt_t *> (5))->x", 13),
    ("", "ADD[2, 3] + strlen(NAME)", 7),
    ("this->e = BLUE;", "this->e == BLUE ? this->e : 0", 6),
    ('p.t = "text"; p.next = (pt_t *)alloca(sizeof (pt_t)); p.next->t = p.t;', "strlen(p.next->t)", 4),
    ('this->t = strtok("a,b", ","); this->u = strtok(NULL, ",");', "strlen(strjoin(this->t, this->u))", 2),
    ("if (pid == 7) { z = 1; } else { z = 2; }", "z", 1),
    ("", "offsetof(pt_t, s)", 9),
]


@pytest.mark.parametrize(("body", "expr", "expected"), _PROGRAMS)
def test_program(body: str, expr: str, expected: int) -> None:
    record = run(f"{_DECLARED} BEGIN {{ x = 0; y = (int64_t)0; {body} trace((int64_t)({expr})); }}").record
    assert record is not None
    assert int.from_bytes(record, "little", signed=True) == expected


_FAULTS = [
    ("trace(*(int *)0);", FaultKind.BADADDR, 0),
    ("trace(*(char *)0x1234);", FaultKind.BADADDR, 0x1234),
    ("trace(stringof((char *)0x10));", FaultKind.BADADDR, 0x10),
    ("trace(1 / arg0);", FaultKind.DIVZERO, 0),
    ("trace(alloca(1 << 20));", FaultKind.NOSCRATCH, 0),
    ("copyin(0x77, 4);", FaultKind.BADADDR, 0x77),
    ("trace(copyinstr(0x78));", FaultKind.BADADDR, 0x78),
    ("this->p = (int *)alloca(4); this->p[5] = 1;", FaultKind.BADADDR, None),
    ('bcopy("abc", (void *)0x99, 2);', FaultKind.BADADDR, 0x99),
    ("trace(inet_ntop(99, alloca(4)));", FaultKind.ILLOP, 0),
    ("trace(lltostr(1, 99));", FaultKind.ILLOP, 0),
]


@pytest.mark.parametrize(("body", "kind", "value"), _FAULTS)
def test_fault(body: str, kind: FaultKind, value: int | None) -> None:
    outcome = run(f"BEGIN {{ {body} }}")
    assert outcome.fault is not None
    assert outcome.fault.kind is kind
    assert value is None or outcome.fault.value == value


def test_what_stays_from_clause_to_clause_and_what_does_not() -> None:
    w = world('BEGIN { g = "x"; self->s = "y"; q[1] = 2; } BEGIN { trace(strjoin(g, self->s)); trace(q[1]); }')
    assert w.run()[1].record == b"xy".ljust(256, b"\0") + (2).to_bytes(8, "little")


def test_dynamic_variables_have_a_limit_and_are_freed_by_zero() -> None:
    w = world('BEGIN { a[arg0] = 1; b[arg0] = "x"; a[arg0] = 0; b[arg0] = 0; }')
    for _ in range(3):
        w.run()
    assert w.state.drops == 0
    w = world("BEGIN { a[arg0] = 1; }")
    w.state.limits = type(w.state.limits)(dynvarsize=100)
    for n in range(5):
        w.args = (n, *[0] * 9)
        w.run()
    assert w.state.drops == 3
