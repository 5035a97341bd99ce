"""Hypothesis strategies for D: expressions of every operator and type, statements, whole scripts."""

from __future__ import annotations

import json

from hypothesis import strategies as st

from tests.codegen.emulated_kernel import KMEM

EDGES = (0, 1, -1, 2, 7, 63, 64, 127, -128, 255, 256, 32767, 65535, 1 << 31, -(1 << 31), (1 << 31) - 1, (1 << 32) - 1)
WIDE_EDGES = (1 << 32, 1 << 62, (1 << 63) - 1, -(1 << 63), -(1 << 63) + 1, 0x0123456789ABCDEF)

ints = st.one_of(st.sampled_from((*EDGES, *WIDE_EDGES)), st.integers(-3, 70), st.integers(-(1 << 63), (1 << 63) - 1))
"""Arguments: often at an edge."""

DECLARATIONS = """struct pair { int a; char name[10]; uint64_t b; };
int64_t x; int32_t i; char c; unsigned short h; uint32_t u; uint64_t w;
this int64_t t; this unsigned char b; this short s;
self int64_t y; self int32_t z; self unsigned char k; self string p; self int64_t m[int64_t];
int64_t n[int64_t]; uint32_t v[string, int64_t]; string g[int64_t];
string q; this string r; struct pair o; this struct pair j; self struct pair e; struct pair f[int64_t];
"""
TARGETS = ("x", "i", "c", "h", "u", "w", "this->t", "this->b", "this->s")
OTHER_TARGETS = (
    *("self->y", "self->z", "self->k", "self->m[1]", "self->m[arg0]", "n[arg1 & 3]", "n[arg0]"),
    *("v[execname, arg1]", 'v["a", 1]', "o.a", "o.b", "o.name[3]", "this->j.a", "this->j.b", "self->e.a", "self->e.b"),
    *("f[arg2 & 3].a", "f[1].b", "f[1].name[2]", "q[1]", "this->r[0]", "g[arg0 & 3][arg1 & 7]"),
)
TEXT_TARGETS = ("q", "this->r", "self->p", "g[1]", "g[arg0 & 3]")
CASTS = ("char", "unsigned char", "int16_t", "unsigned short", "int", "unsigned", "long", "uint64_t")
BINARY = ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "^^")

_literals = st.one_of(
    st.integers(0, 70).map(str),
    st.sampled_from((*EDGES, *WIDE_EDGES)).filter(lambda v: v >= 0).map(str),
    st.builds("{}{}".format, st.integers(0, (1 << 32) - 1), st.sampled_from(("u", "l", "ul", ""))),
    st.builds("{:#x}{}".format, st.integers(0, (1 << 64) - 1), st.sampled_from(("", "ul"))),
    st.sampled_from(("'a'", "'\\n'")),
)
_facts = (
    "pid",
    "tid",
    "cpu",
    "id",
    "epid",
    "timestamp",
    "ppid",
    "uid",
    "gid",
    "walltimestamp",
    "vtimestamp",
    "errno",
    "(int64_t)curthread",
)
_values = st.sampled_from((*(f"arg{n}" for n in range(6)), *TARGETS, *OTHER_TARGETS, *_facts))
_MEMORY = ("char", "unsigned char", "int16_t", "unsigned short", "int", "unsigned", "long", "uint64_t")
_plain_texts = st.one_of(
    st.sampled_from(("execname", "execname", "curabi", "probefunc", "probeprov", "probemod", "probename")),
    st.sampled_from(("", "bash", "f0", "fbt", "entry", "bas", "bash2", "a long name of more than sixteen bytes")).map(
        '"{}"'.format
    ),
    st.text("abz\u00e9", max_size=15).map('"{}"'.format),
)


def _texts(condition: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    paths = st.text("/.ab", max_size=12).map('"{}"'.format)
    simple = st.one_of(_plain_texts, _plain_texts, paths, st.sampled_from(TEXT_TARGETS), _numbers, _json)
    return st.recursive(simple, lambda inner: _text_calls(inner, condition), max_leaves=3)


_documents = st.text('{}[]:,"\\ab1. ', max_size=16).map(lambda text: json.dumps(text, ensure_ascii=False))
_json = st.builds(
    "json({}, {})".format,
    st.one_of(
        st.sampled_from(
            ("{{'a': [{0}, {0}], 'b': {{'a': {0}}}}}", "[{0}, [{0}, {{'b': {0}}}]]", "{{'a':{0},'b':{0}")
        ).map(lambda text: json.dumps(text.replace("'", '"').format('"x y"'))),
        _documents,
    ),
    st.sampled_from(("a", "b", "a[1]", "b.a", "[1][1].b", "[0]", "[1]", "a.b", "")).map('"{}"'.format),
)
_numbers = st.text(" +-0123456789abcxXz", max_size=12).map('"{}"'.format)
_places = st.one_of(st.integers(-4, 20), st.integers(-300, 300), st.sampled_from(WIDE_EDGES)).map(
    lambda n: str(n) if n > -(1 << 63) else "(-9223372036854775807 - 1)"
)


def _text_calls(inner: st.SearchStrategy[str], condition: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.sampled_from(("basename", "dirname", "cleanpath", "tolower", "toupper"))
    two = st.sampled_from(("strjoin", "strjoin", "strstr", "strtok"))
    return st.one_of(
        st.builds("({} ? {} : {})".format, condition, inner, inner),
        st.builds("{}({})".format, one, inner),
        st.builds("{}({}, {})".format, two, inner, inner),
        st.builds("{}({}, {})".format, st.sampled_from(("strchr", "strrchr")), inner, st.sampled_from(("'a'", "'/'"))),
        st.builds("substr({}, {})".format, inner, _places),
        st.builds("substr({}, {}, {})".format, inner, _places, _places),
        st.builds("lltostr({})".format, condition),
        st.builds("lltostr({}, {})".format, condition, st.sampled_from(("2", "8", "10", "16", "36", "37", "arg5"))),
        st.builds("strtok(NULL, {})".format, inner),
        st.builds("json({}, {})".format, inner, inner),
        st.builds("stringof((char *)({:#x}ul + {}))".format, st.just(KMEM), st.integers(0, 0x2100)),
        st.builds("({} = {})".format, st.sampled_from(TEXT_TARGETS), inner),
    )


def _memory(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Reads of kernel memory; at its end, and past it, they fault."""
    place = st.one_of(st.integers(0, 0xFFF).map(str), st.sampled_from(("0x1ff8", "0x1ffc", "0x1fff", "0x2000")))
    return st.one_of(
        st.builds("(*({} *)({:#x}ul + {}))".format, st.sampled_from(_MEMORY), st.just(KMEM), place),
        st.builds("(*({} *)({:#x}ul + ({} & 0xfff)))".format, st.sampled_from(_MEMORY), st.just(KMEM), inner),
    )


def _text_numbers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    some = _texts(inner)
    return st.one_of(
        st.builds("strlen({})".format, some),
        st.builds("index({}, {})".format, some, some),
        st.builds("index({}, {}, {})".format, some, some, _places),
        st.builds("rindex({}, {})".format, some, some),
        st.builds("rindex({}, {}, {})".format, some, some, _places),
        st.builds("strtoll({})".format, some),
        st.builds("strtoll({}, {})".format, some, st.sampled_from(("2", "8", "10", "16", "36", "1", "arg4"))),
        st.builds("{}({})".format, st.sampled_from(("htonl", "htons", "ntohll", "getmajor", "getminor")), inner),
    )


def _bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({1} {0} {2})".format, st.sampled_from(BINARY), inner, inner),
        st.builds("({1} {0} {2})".format, st.sampled_from(BINARY), inner, inner),
        st.builds("({} {})".format, st.sampled_from("-~!+"), inner),
        st.builds("(({}){})".format, st.sampled_from(CASTS), inner),
        st.builds("({} ? {} : {})".format, inner, inner, inner),
        st.builds("({}, {})".format, inner, inner),
        st.builds(
            "({} {}= {})".format,
            st.sampled_from((*TARGETS, *OTHER_TARGETS)),
            st.sampled_from(("", "", "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>")),
            inner,
        ),
        st.builds("({})".format, st.builds("{1}{0}".format, st.sampled_from(("++", "--")), st.sampled_from(TARGETS))),
        _memory(inner),
        _text_numbers(inner),
        st.builds("({})".format, st.builds("{0}{1}".format, st.sampled_from(("++", "--")), st.sampled_from(TARGETS))),
        st.builds(
            "({1} {0} {2})".format,
            st.sampled_from(("==", "!=", "<", "<=", ">", ">=")),
            _texts(st.just("arg1")),
            _texts(st.just("arg2")),
        ),
    )


expressions = st.recursive(st.one_of(_literals, _values), _bigger, max_leaves=10)
texts = _texts(expressions)
_small = st.recursive(st.one_of(_literals, _values), _bigger, max_leaves=3)
_keys = st.one_of(
    _small,
    st.sampled_from(("execname", "probefunc", "probename", "pid", "tid", "id", "cpu")),
    texts,
)


_HISTOGRAMS = {
    "quantize": st.just(""),
    "lquantize": st.sampled_from((", 0, 100, 10", ", -50, 50, 1", ", -7, 1000, 3", ", 5, 6, 1")),
    "llquantize": st.sampled_from((", 10, 0, 6, 20", ", 2, 0, 40, 2", ", 10, 2, 17, 10", ", 3, 1, 4, 9")),
}


AGGREGATING = ("count", "sum", "avg", "min", "max", "stddev", *_HISTOGRAMS)


@st.composite
def aggregation(draw: st.DrawFn, functions: tuple[str, ...] = AGGREGATING) -> str:
    """An update by one of these functions; the name is ``NAME``, which each has to have of its own."""
    keys = draw(st.one_of(st.just([]), st.just(["probefunc"]), st.lists(_keys, min_size=1, max_size=3)))
    function = draw(st.sampled_from(functions))
    value = "" if function == "count" else draw(_small) + draw(_HISTOGRAMS.get(function, st.just("")))
    if function in _HISTOGRAMS:
        value += draw(st.one_of(st.just(""), _small.map(", {}".format)))
    shown = f"[{', '.join(keys)}]" if keys else ""
    return f"@NAME{shown} = {function}({value});"  # NAME: numbered by script(), a name has one function


_printf = st.one_of(
    st.builds('printf("%d %s %x", {}, {}, {});'.format, _small, texts, _small),
    st.builds('printf("%s|%s", {}, {});'.format, texts, texts),
)
_simple = st.one_of(
    aggregation(),
    aggregation(),
    st.builds("trace({});".format, expressions),
    st.builds("trace({});".format, texts),
    _printf,
    st.builds("{} = {};".format, st.sampled_from(TARGETS), expressions),
    st.builds("{};".format, expressions),
)
_statements = st.recursive(
    _simple,
    lambda inner: st.one_of(
        st.builds("if ({}) {{ {} }};".format, _small, inner),
        st.builds("if ({}) {{ {} }} else {{ {} }};".format, _small, inner, inner),
        st.builds("{} {}".format, inner, inner),
    ),
    max_leaves=4,
)


@st.composite
def scripts(draw: st.DrawFn) -> str:
    """Declarations and one to three clauses on every probe."""
    clauses = draw(
        st.lists(
            st.builds(
                "fbt::: {} {{ {} }}".format,
                st.one_of(st.just(""), st.builds("/{}/".format, _small)),
                st.lists(_statements, min_size=1, max_size=3).map(" ".join),
            ),
            min_size=1,
            max_size=3,
        )
    )
    first, *rest = "\n".join(clauses).split("@NAME")
    return DECLARATIONS + first + "".join(f"@a{n}{piece}" for n, piece in enumerate(rest))
