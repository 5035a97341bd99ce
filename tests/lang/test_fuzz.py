"""Whatever the text, either it compiles or CompileError says why: nothing else escapes."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probekit.ir.build import compile_program
from probekit.ir.names import BUILTINS
from probekit.ir.pprint import format_program
from probekit.ir.verify import verify_program
from probekit.lang.diagnostics import CompileError
from probekit.session.options import Options
from tests.interp.worlds import World
from tests.session.programs import run


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
def test_any_text_compiles_or_is_refused(text: str) -> None:
    _try(text)


@given(st.binary())
def test_any_bytes_compile_or_are_refused(data: bytes) -> None:
    _try(data.decode("utf-8", "surrogateescape"))


_WORDS = """BEGIN END fbt::f*:entry tick-1s 42 { } ( ) [ ] ; , . -> ? : / /= // + - * % ++ -- ! ~ & && | || ^ ^^ << >> <
    <= > >= == != = += <<= @ @a @b[ self this self->x this->y x y z pid arg0 arg1 execname probefunc args curthread
    count sum quantize trace printf exit printa if else sizeof stringof offsetof xlate int char unsigned long string
    struct uint64_t size_t inline typedef for while 0 1 7u 0x1f 'a' 1.5 08 `sym m`s $1 $$1 $target $0 #"""
_PIECES = ('"a"', '"%d"', '"%s %d"', '"%"', '"%*d"', "\n", "/* c */", "\n#pragma D option quiet\n")
_TOKENS = st.sampled_from((*_WORDS.split(), *_PIECES))


@given(st.lists(_TOKENS, max_size=30))
def test_any_tokens_compile_or_are_refused(tokens: list[str]) -> None:
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
def test_any_sentence_of_the_grammar_compiles_or_is_refused(clauses: list[str]) -> None:
    _try("\n".join(clauses))


_DECLARED = """
struct pt { int x; char s[8]; unsigned b:3; struct pt *n; string t; }; typedef struct pt pt_t;
enum color { RED, BLUE = 5 };
pt_t p; pt_t row[3]; int arr[4]; int *ip; char *cp; void *vp; string gs; int gi; uint64_t gu; int aa[int, string];
string sa[int]; pt_t st[int]; self string ss; self int si;
inline int ADD[int a, int b] = a + b; inline string NM = "nm";
translator pt_t < int v > { x = v; s = "abc"; t = "t"; };
"""
_PLACES = st.sampled_from(
    """gi gu gs p p.x p.s p.b p.t p.n row[1].x row[gi] arr arr[2] *ip ip cp cp[1] vp this->x this->new self->si self->ss
    self->new[1] new fresh[1,"a"] aa[1,"a"] sa[2] st[1].x st[1] this->p this->p->n->x @a @a[1] RED pid NM""".split()
)
_VALUES = st.one_of(
    _PLACES,
    st.sampled_from(
        """1 -1 0x7fffffffffffffff 5ULL 'a' "abc" "" NULL pid execname probename arg0 timestamp sizeof(pt_t) alloca(8)
        stack() sym(0) ustack(3) speculation() rand() curpsinfo->pr_fname count() trace(1) (pt_t*)alloca(sizeof(pt_t))
        &p.x &row[1] ADD[1,2] (xlate<pt_t>(3)).s (xlate<pt_t*>(gi))->x strtok("a,b",",") curthread""".split()
    ),
)
_UNARY = "- ! ~ * & (int) (string) (char*) (pt_t*) sizeof stringof ++".split()
_OF_ONE = "strlen basename lltostr htonl copyinstr inet_ntoa toupper".split()
_OF_TWO = "strjoin strchr index substr strtok json inet_ntop".split()
_RICH = st.recursive(
    _VALUES,
    lambda e: st.one_of(
        st.builds("({} {} {})".format, e, st.sampled_from("+ - * / % & | << < == != && ^^ ,".split()), e),
        st.builds("({} {} {})".format, _PLACES, st.sampled_from("= += -= *= /= |= <<=".split()), e),
        st.builds("{}({})".format, st.sampled_from(_UNARY), e),
        st.builds("({} ? {} : {})".format, e, e, e),
        st.builds("({})[{}]".format, e, e),
        st.builds("({}){}{}".format, e, st.sampled_from((".", "->")), st.sampled_from("x s b n t".split())),
        st.builds("{}({})".format, st.sampled_from(_OF_ONE), e),
        st.builds("{}({}, {})".format, st.sampled_from(_OF_TWO), e, e),
    ),
    max_leaves=6,
)
_ACTIONS = st.one_of(
    st.builds("{};".format, _RICH),
    st.builds("{}({});".format, st.sampled_from("trace print exit commit discard sym raise".split()), _RICH),
    st.builds('printf("%d %s", {}, {});'.format, _RICH, _RICH),
    st.builds("tracemem({}, 8);".format, _RICH),
    st.builds("@k[{}] = quantize({}, {});".format, _RICH, _RICH, _RICH),
    st.builds("bcopy({}, {}, 4);".format, _RICH, _RICH),
    st.builds("if ({}) {{ trace({}); }} else gi = {};".format, _RICH, _RICH, _RICH),
)


@given(st.lists(_ACTIONS, max_size=3))
def test_whatever_compiles_also_runs(statements: list[str]) -> None:
    """No value, address or type makes the evaluator do anything but go on or fault."""
    text = _DECLARED + "BEGIN { this->p = (pt_t *)alloca(64); this->x = 1; @a = count(); " + " ".join(statements) + " }"
    try:
        program = compile_program(text)
    except CompileError as error:
        assert error.text()
        return
    assert verify_program(program) == []
    World(program, builtins={n: b"x" if b.kind == "string" else 1 for n, b in BUILTINS.items()}).run()


_FUNCTIONS = st.sampled_from(("count()", "sum(gi)", "avg(gu)", "min(si)", "max(3)", "stddev(gi)", "quantize(gi)"))
_SHOWN = st.one_of(
    st.builds("{}({});".format, st.sampled_from("trace print exit commit discard sym speculate".split()), _RICH),
    st.builds(
        'printf("%5d|%-8s|%x|%#o|%c|%a|%Y", {}, {}, {}, {}, gi, {}, gu);'.format, _RICH, _RICH, _RICH, _RICH, _RICH
    ),
    st.builds("@{}[{}] = {};".format, st.sampled_from("rst"), _RICH, _FUNCTIONS),
    st.builds('printa("%d %@d %8@x\\n", @{});'.format, st.sampled_from("rst")),
    st.builds("{}(@{});".format, st.sampled_from("printa clear trunc denormalize".split()), st.sampled_from("rst")),
    st.builds("{}(@{}, {});".format, st.sampled_from("trunc normalize".split()), st.sampled_from("rst"), _RICH),
    st.builds("tracemem({}, 8, {});".format, _RICH, _RICH),
    st.builds("gi = {};".format, _RICH),
)


@given(st.lists(st.lists(_SHOWN, min_size=1, max_size=3), min_size=1, max_size=3), st.booleans())
def test_whatever_runs_is_also_shown(clauses: list[list[str]], quiet: bool) -> None:
    """A whole run without a guest: records read, aggregations sorted, faults and drops told, all of it printed."""
    setup = "BEGIN { gi = 7; gu = 9; this->p = (pt_t *)alloca(64); this->x = 1; @a = count(); "
    text = _DECLARED + "".join(f"{setup}{' '.join(actions)} }}\n" for actions in clauses)
    try:
        program = compile_program(text + "ERROR { trace(arg4); } BEGIN { exit(0); } END { printa(@a); }")
    except CompileError as error:
        assert error.text()
        return
    out, messages, _ = run(program, Options(quiet=quiet, nspec=2))
    assert isinstance(out + messages, str)


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
def test_extreme_numbers_and_names_compile_or_are_refused(text: str) -> None:
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
