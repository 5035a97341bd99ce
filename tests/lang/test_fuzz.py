"""Whatever the text, either it compiles or CompileError says why: nothing else escapes."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probekit.ir.build import compile_program
from probekit.ir.pprint import format_program
from probekit.ir.verify import verify_program
from probekit.lang.diagnostics import CompileError


def _try(text: str) -> None:
    try:
        program = compile_program(text, filename="fuzz.d", allow_bare=True, args=("s", "1"), macros={"target": 4})
    except CompileError as error:
        assert error.diagnostics
        assert error.text()
        assert error.text(errtags=True).count("\n") == len(error.diagnostics) - 1
        return
    assert verify_program(program) == []
    assert format_program(program)


@given(st.text())
@example("\0")
@example("\ud800 BEGIN")
@example('BEGIN { trace("\ud800"); }')
@example('BEGIN { trace("\udc80"); }')
@example("BEGIN { x = '\\")
@example("BEGIN { é = 1; }")
@example("BEGIN { trace(1); }\r\n")
@example("\u2028BEGIN { x = ٣; }")
@example("٣ { }")
@example("BEGIN { trace($99999999999999999999); }")
def test_any_text(text: str) -> None:
    _try(text)


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    _try(data.decode("utf-8", "surrogateescape"))


_WORDS = """BEGIN END fbt::f*:entry tick-1s 42 { } ( ) [ ] ; , . -> ? : / /= // + - * % ++ -- ! ~ & && | || ^ ^^ << >> <
    <= > >= == != = += <<= @ @a @b[ self this self->x this->y x y z pid arg0 arg1 execname probefunc args curthread
    count sum quantize trace printf exit printa if else sizeof stringof offsetof xlate int char unsigned long string
    struct uint64_t size_t inline typedef for while 0 1 7u 0x1f 'a' 1.5 08 `sym m`s $1 $$1 $target $0 #"""
_PIECES = ('"a"', '"%d"', '"%s %d"', '"%"', '"%*d"', "\n", "/* c */", "\n#pragma D option quiet\n")
_TOKENS = st.sampled_from((*_WORDS.split(), *_PIECES))


@given(st.lists(_TOKENS, max_size=30))
def test_any_tokens(tokens: list[str]) -> None:
    _try(" ".join(tokens))


_ATOMS = st.sampled_from(
    [
        "0",
        "1",
        "arg0",
        "pid",
        "x",
        "y",
        "execname",
        "probefunc",
        '"s"',
        "this->t",
        "@a",
        "count()",
        "x++",
        "$1",
        "self->q",
    ]
)
_EXPRS = st.recursive(
    _ATOMS,
    lambda e: st.one_of(
        st.builds("({} {} {})".format, e, st.sampled_from("+ - * / % & && ^^ < == , = += <<".split()), e),
        st.builds("{}({})".format, st.sampled_from(["-", "!", "~", "(char)", "(string)", "sizeof", "trace", "sum"]), e),
        st.builds("({} ? {} : {})".format, e, e, e),
        st.builds("@k[{}, {}] = max({})".format, e, e, e),
        st.builds('printf("%d %s", {}, {})'.format, e, e),
    ),
    max_leaves=8,
)
_STATEMENTS = st.recursive(
    st.builds("{};".format, _EXPRS),
    lambda s: st.one_of(
        st.builds("if ({}) {{ {} }} else {}".format, _EXPRS, s, s),
        st.builds("{{ {} {} }}".format, s, s),
    ),
    max_leaves=5,
)


@given(st.lists(st.builds("BEGIN /{}/ {{ x = 1; y = arg0; this->t = 2; {} }}".format, _EXPRS, _STATEMENTS), max_size=3))
def test_any_sentence_of_the_grammar(clauses: list[str]) -> None:
    _try("\n".join(clauses))


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN { x = " + "(" * 20000 + "1" + ")" * 20000 + "; }",
        "BEGIN { x = " + "-" * 20001 + "1; }",
        "BEGIN { x = " + "- " * 20001 + "1; }",
        "BEGIN { x = " + "1 + " * 20000 + "1; }",
        "BEGIN { x = " + "1 ? " * 5000 + "1" + " : 1" * 5000 + "; }",
        "BEGIN { " + "if (1) " * 5000 + "x = 1; }",
        "BEGIN { " + "{" * 5000 + "}" * 5000 + " }",
        "BEGIN { x = " + "y = " * 5000 + "1; }",
        "BEGIN { x = a" + "->b" * 5000 + "; }",
        "BEGIN { x = " + "(int)" * 5000 + "1; }",
        "BEGIN { x = " + "!" * 5000 + "arg0; }",
        "/*" * 20000,
        '"' * 20001,
        "a," * 20000 + "a { }",
        "x" * 100_000 + " { }",
        "BEGIN { trace(" + "9" * 100_000 + "); }",
        'BEGIN { trace("' + "a" * 100_000 + '"); }',
        "BEGIN { @[" + "1," * 5000 + "1] = count(); }",
        "#" * 50_000,
        "/" * 50_000,
        " " * 200_000,
        "x" * (5 << 20),
    ],
    ids=lambda text: text[:12].strip() or "blank",
)
def test_extremes(text: str) -> None:
    _try(text)


def test_cost_grows_linearly() -> None:
    line = "fbt::sys_*:entry /pid == 7 && arg0 > 3/ { @[probefunc, execname] = count(); x += arg0 * 2; }\n"
    _try(line)
    started = time.monotonic()
    _try(line * 250)
    small = time.monotonic() - started
    started = time.monotonic()
    _try(line * 1000)
    large = time.monotonic() - started
    assert large < 12 * small + 0.5
