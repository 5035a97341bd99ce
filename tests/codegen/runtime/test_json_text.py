"""``json()`` as machine code beside the host's: random documents, mutilated ones, random paths."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from probekit.interp import json_text
from tests.codegen.compared import Compared
from tests.codegen.emulated_kernel import DATA
from tests.codegen.machine import Machine

EXAMPLES = int(os.environ.get("PROBEKIT_FUZZ", "120"))
_SIZE = 1024
_SCRIPT = "string doc, path; fbt::: { trace(json(doc, path)); }"

_names = st.one_of(st.sampled_from("abc"), st.sampled_from("abc"), st.text('ab.[]"\\é ', max_size=3))
_atoms = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 40), 1 << 40), st.floats(allow_nan=False), st.text(max_size=6)
)


def _containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.lists(inner, min_size=1, max_size=4), st.dictionaries(_names, inner, min_size=1, max_size=4))


_values = _containers(st.recursive(_atoms, _containers, max_leaves=12))
_blanks = st.sampled_from(((",", ":"), (", ", ": "), (" ,\n", "\t: "), ("\r\n,  ", " :")))
_pieces = st.one_of(
    st.sampled_from((b"", b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"tru", b"null", b"false", b"-")),
    st.binary(min_size=1, max_size=2),
)
_steps = st.one_of(
    _names.map(lambda name: f".{name}"),
    _names,
    st.integers(0, 5).map("[{}]".format),
    st.sampled_from(("[", "]", "[]", "[01]", "[999999999]", "[1000000000]", ".", "..", "[-1]", "[a]", "[1")),
)


def _paths_of(value: object) -> list[str]:
    """Every path that leads somewhere, as far as a path can say it."""
    found = []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        here = f".{key}" if isinstance(key, str) else f"[{key}]"
        found += [here, *(here + rest for rest in _paths_of(part))]
    return found


@st.composite
def _cases(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A document as some writer of JSON makes it, or with a few bytes gone, doubled, or replaced; and a path."""
    value = draw(_values)
    text = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=draw(_blanks)).encode()
    for _ in range(draw(st.sampled_from((0, 0, 1, 3)))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 3))
        text = text[:at] + draw(_pieces) + text[at + length :]
    text = draw(st.one_of(st.just(text), st.just(text), st.just(text), st.binary(max_size=40)))
    known = st.sampled_from(_paths_of(value))
    path = draw(st.one_of(known, known, known, st.lists(_steps, max_size=4).map("".join)))
    return text.split(b"\0")[0][: _SIZE - 1], path.removeprefix(".").encode().split(b"\0")[0][: _SIZE - 1]


class _Pair:
    """One machine for all cases: the two strings are global variables."""

    def __init__(self) -> None:
        self.machine = Machine(_SCRIPT, strsize=_SIZE, bufsize=1 << 13)
        places = [self.machine.storage.globals_[v.index] for v in self.machine.program.variables]
        self._at = [DATA + place.offset for place in places]

    def json(self, document: bytes, path: bytes, *, count: bool = False) -> tuple[bytes, int]:
        for at, text in zip(self._at, (document, path), strict=True):
            self.machine.write(at, text.ljust(_SIZE, b"\0"))
        fired = self.machine.fire(count=count)
        assert (fired.fault, fired.bad) == (0, ())
        (record,) = self.machine.drain()
        return record.payload[:_SIZE].split(b"\0")[0], fired.steps


@pytest.fixture(scope="module")
def pair() -> _Pair:
    return _Pair()


@settings(max_examples=6 * EXAMPLES, suppress_health_check=list(HealthCheck))
@given(_cases())
@example((b'{"a": [1, {"b": "x"}]}', b"a[1].b"))
@example((b'{"a": 1, "a": 2}', b"a"))
@example((b'{"a\\"b": 1}', b'a\\"b'))
def test_any_document_and_path_give_what_the_host_gives(pair: _Pair, case: tuple[bytes, bytes]) -> None:
    assert pair.json(*case)[0] == json_text.find_value(*case)


@pytest.mark.parametrize(
    ("document", "path", "found"),
    [
        (b'{"a": "b"}', b"a", b"b"),
        (b' { "x" : { "y" : [ 10 , [ true , null ] ] } } ', b"x.y[1][1]", b"null"),
        (b'{"a": {"b": 1} }', b"a", b'{"b": 1}'),
        (b'["\\u00e9\\"", 2]', b"[0]", b'\\u00e9\\"'),
        (b"[1, 2]", b"[2]", b""),
        (b"[1, 2,]", b"[2]", b""),
        (b"[trueish]", b"[0]", b"true"),
        (b'{"a": 1', b"a", b"1"),
        (b'{"a" 1}', b"a", b""),
        (b'{"a": "no end', b"a", b""),
        (b'{"a": "\\', b"a", b""),
        (b"[tru", b"[0]", b""),
        (b'{"a": [}, "b": 1}', b"b", b"1"),
        (b'{"a": 1}', b"", b""),
        (b"", b"a", b""),
        (b'{"a": ""}', b"a", b""),
    ],
)
def test_usual_documents_give_the_value_as_it_is_written(
    pair: _Pair, document: bytes, path: bytes, found: bytes
) -> None:
    assert json_text.find_value(document, path) == found
    assert pair.json(document, path)[0] == found


@pytest.mark.parametrize("depth", [1, 63, 64, 65, 66, 400])
@pytest.mark.parametrize("brackets", [b"[]", b"{}", b"[}"])
def test_a_document_is_read_to_its_bound_of_depth(pair: _Pair, depth: int, brackets: bytes) -> None:
    """Of what is looked for there is no limit, of what is passed by there is one."""
    nested = brackets[:1] * depth + brackets[1:] * depth
    passed, wanted = b'{"a":' + nested + b',"b":7}', b'{"a":' + nested + b"}"
    for document, path in ((passed, b"b"), (wanted, b"a")):
        found = json_text.find_value(document, path)
        assert pair.json(document, path)[0] == found
        assert bool(found) == (depth <= 64)
    down = b"[" * depth + b"7" + b"]" * depth
    assert pair.json(down, b"[0]" * min(depth, 300))[0] == json_text.find_value(down, b"[0]" * min(depth, 300))


@pytest.mark.parametrize("strsize", [2, 3, 4, 8, 256])
def test_a_value_is_cut_to_the_size_of_strings(strsize: int) -> None:
    document = '{\\"k\\": \\"0123456789\\", \\"n\\": [123456, 7]}'
    for path in ("k", "n", "n[0]", "n[1]", "m"):
        both = Compared(
            f'fbt::: {{ trace(json("{document}", "{path}")); trace(json(execname, execname)); }}', strsize=strsize
        )
        both.fire()
        both.check()


def test_time_is_bounded_by_the_length(pair: _Pair) -> None:
    """However the document is made: no byte is looked at more than a few times."""
    worst = 0
    for size in (100, 200, 400, 800):
        for document, path in (
            (b"[" * size, b"[0]" * (size // 3)),
            (b'{"' * (size // 2), b"a.b" * 100),
            (b"[" + b"1," * (size // 2), b"[999999999]"),
            (b'{"a":"' + b"\\\\" * (size // 2), b"a"),
            (b" " * size, b"a"),
            (b'{"a":{"a":{"a":' * (size // 15), b"a.a.a.a.a.a.a.a.b"),
        ):
            text = document[: _SIZE - 1]
            worst = max(worst, pair.json(text, path, count=True)[1] // (len(text) + len(path)))
    assert worst < 100
