"""Hypothesis strategies for D: expressions of every operator and type, statements, whole scripts."""

from __future__ import annotations

from hypothesis import strategies as st

EDGES = (0, 1, -1, 2, 7, 63, 64, 127, -128, 255, 256, 32767, 65535, 1 << 31, -(1 << 31), (1 << 31) - 1, (1 << 32) - 1)
WIDE_EDGES = (1 << 32, 1 << 62, (1 << 63) - 1, -(1 << 63), -(1 << 63) + 1, 0x0123456789ABCDEF)

ints = st.one_of(st.sampled_from((*EDGES, *WIDE_EDGES)), st.integers(-3, 70), st.integers(-(1 << 63), (1 << 63) - 1))
"""Arguments: often at an edge."""

DECLARATIONS = """int64_t x; int32_t i; char c; unsigned short h; uint32_t u; uint64_t w;
this int64_t t; this unsigned char b; this short s;
"""
TARGETS = ("x", "i", "c", "h", "u", "w", "this->t", "this->b", "this->s")
CASTS = ("char", "unsigned char", "int16_t", "unsigned short", "int", "unsigned", "long", "uint64_t")
BINARY = ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "^^")

_literals = st.one_of(
    st.integers(0, 70).map(str),
    st.sampled_from((*EDGES, *WIDE_EDGES)).filter(lambda v: v >= 0).map(str),
    st.builds("{}{}".format, st.integers(0, (1 << 32) - 1), st.sampled_from(("u", "l", "ul", ""))),
    st.builds("{:#x}{}".format, st.integers(0, (1 << 64) - 1), st.sampled_from(("", "ul"))),
    st.sampled_from(("'a'", "'\\n'")),
)
_values = st.sampled_from((*(f"arg{n}" for n in range(6)), *TARGETS, "pid", "tid", "cpu", "id", "epid", "timestamp"))
_plain_texts = st.one_of(
    st.sampled_from(("execname", "execname", "probefunc", "probeprov", "probemod", "probename")),
    st.sampled_from(("", "bash", "f0", "fbt", "entry", "bas", "bash2", "a long name of more than sixteen bytes")).map(
        '"{}"'.format
    ),
    st.text("abz\u00e9", max_size=15).map('"{}"'.format),
)


def _texts(condition: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(_plain_texts, st.builds("({} ? {} : {})".format, condition, _plain_texts, _plain_texts))


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
            st.sampled_from(TARGETS),
            st.sampled_from(("", "", "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>")),
            inner,
        ),
        st.builds("({})".format, st.builds("{1}{0}".format, st.sampled_from(("++", "--")), st.sampled_from(TARGETS))),
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


@st.composite
def _aggregation(draw: st.DrawFn) -> str:
    keys = draw(st.one_of(st.just([]), st.just(["probefunc"]), st.lists(_keys, min_size=1, max_size=3)))
    function = draw(st.sampled_from(("count", "sum", "avg", "min", "max", "quantize")))
    value = "" if function == "count" else draw(_small)
    shown = f"[{', '.join(keys)}]" if keys else ""
    return f"@NAME{shown} = {function}({value});"  # NAME: numbered by script(), a name has one function


_printf = st.one_of(
    st.builds('printf("%d %s %x", {}, {}, {});'.format, _small, texts, _small),
    st.builds('printf("%s|%s", {}, {});'.format, texts, texts),
)
_simple = st.one_of(
    _aggregation(),
    _aggregation(),
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
