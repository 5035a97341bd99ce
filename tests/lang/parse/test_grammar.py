"""The parser of the grammar: every rule makes a node, and a saved parser is used only if it can be trusted."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from lark import Lark, UnexpectedCharacters
from lark.exceptions import GrammarError
from lark.grammar import Terminal

from probekit.lang import ast
from probekit.lang.parse import grammar
from probekit.lang.parse.grammar import grammar_parser, grammar_text, load_parser
from probekit.lang.parse.tree_builder import TreeBuilder
from probekit.lang.source import Span
from probekit.resources import cache_dir

_SMALL = 'start: IDENT ";" -> name\nIDENT: /[a-z]+/\n'
"""A grammar that is made quickly; ``name`` is a method of the tree builder."""

_OTHER = _SMALL.replace(";", "!")


def test_every_rule_has_its_method_and_every_method_its_rule() -> None:
    called = set()
    for rule in grammar_parser().rules:
        name = rule.alias or str(rule.origin.name)
        if name.startswith("_"):
            continue  # Lark's own, for repetitions: its parts become parts of the rule that has it
        if rule.options.expand1 and not rule.alias:
            kept = [s for s in rule.expansion if not (isinstance(s, Terminal) and s.filter_out)]
            assert len(kept) == 1, f"{name} has more than one part, and no method takes them"
        else:
            called.add(name)
    methods = {name for name in dir(TreeBuilder) if not name.startswith("_")}
    assert methods - {"transform"} == called


@pytest.fixture
def no_making(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser can be loaded, but none can be made."""

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a parser is made")

    monkeypatch.setattr(Lark, "__init__", refuse)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a saved parser of the small grammar, from which it was loaded once."""
    folder = tmp_path / "probekit" / "grammar"
    load_parser(_SMALL, folder)
    return folder


def _saved(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _assert_works(parser: Lark) -> None:
    assert parser.parse("abc;") == ast.Name("abc", Span(0, 3))
    with pytest.raises(UnexpectedCharacters):
        parser.parse("1")


def test_a_saved_parser_is_loaded_and_not_made_again(folder: Path, no_making: None) -> None:
    _assert_works(load_parser(_SMALL, folder))
    assert (_saved(folder).stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("changed", ["grammar", "lark", "options", "python"])
def test_a_parser_of_another_grammar_or_version_is_not_taken(
    folder: Path, no_making: None, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changed == "lark":
        monkeypatch.setattr("lark.__version__", "0.0.1")
    elif changed == "options":
        monkeypatch.setitem(grammar._OPTIONS, "strict", False)
    elif changed == "python":
        monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-0")
    with pytest.raises(AssertionError, match="is made"):
        load_parser(_SMALL + ("\n// changed" if changed == "grammar" else ""), folder)


def _cuts_and_flips(data: bytes) -> Iterator[bytes]:
    yield from (data[:n] for n in (0, 1, 31, 32, 33, len(data) // 2, len(data) - 1))
    yield data + b"x"
    for at in range(0, len(data), max(1, len(data) // 40)):
        yield data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def test_a_damaged_file_is_made_anew_without_a_word(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _saved(folder)
    whole = path.read_bytes()
    made = load_parser(_SMALL, None)
    monkeypatch.setattr(grammar, "Lark", _Standing(made))
    for number, damaged in enumerate(_cuts_and_flips(whole)):
        path.write_bytes(damaged)
        assert load_parser(_SMALL, folder) is made, number
        assert path.read_bytes() != damaged
    monkeypatch.undo()
    _assert_works(load_parser(_SMALL, folder))
    assert capfd.readouterr() == ("", "")


class _Standing:
    """Stands for the class: it makes always the same parser, and loads none that is damaged."""

    def __init__(self, made: Lark) -> None:
        self._made = made

    def __call__(self, *_args: object, **_options: object) -> Lark:
        return self._made

    def load(self, _file: object) -> Lark:
        raise AssertionError("a damaged parser is loaded")


def test_a_file_is_tied_to_its_name(folder: Path) -> None:
    path = _saved(folder)
    load_parser(_OTHER, folder)
    (other,) = (p for p in folder.iterdir() if p != path)
    other.write_bytes(path.read_bytes())
    assert load_parser(_OTHER, folder).parse("abc!") == ast.Name("abc", Span(0, 3))


def _everyone_may_write(path: Path) -> None:
    path.chmod(0o666)


def _a_group_may_write(path: Path) -> None:
    path.chmod(0o660)


def _everyone_may_write_in_its_folder(path: Path) -> None:
    path.parent.chmod(0o1777)


def _a_folder_above_can_be_replaced(path: Path) -> None:
    path.parent.parent.parent.chmod(0o777)


def _a_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def _a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _of_another_user(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, -1)


def _in_a_folder_of_another_user(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    os.chown(path.parent, 65534, -1)


class _Trap:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._trace),)


@pytest.mark.parametrize(
    "spoil",
    [
        _everyone_may_write,
        _a_group_may_write,
        _everyone_may_write_in_its_folder,
        _a_folder_above_can_be_replaced,
        _a_link,
        _a_pipe,
        _of_another_user,
        _in_a_folder_of_another_user,
    ],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_a_file_that_others_can_write_is_never_unpickled(
    folder: Path, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path, trace = _saved(folder), tmp_path / "trace"
    key = path.name.removesuffix(path.suffix)
    body = pickle.dumps(_Trap(trace))
    path.write_bytes(sha256(key.encode() + body).digest() + body)
    spoil(path)
    _assert_works(load_parser(_SMALL, folder))
    assert not trace.exists()


def test_the_trap_works(folder: Path, tmp_path: Path) -> None:
    """What the test above relies on: a file that is trusted is unpickled."""
    path, trace = _saved(folder), tmp_path / "trace"
    body = pickle.dumps(_Trap(trace))
    path.write_bytes(sha256(path.name.removesuffix(path.suffix).encode() + body).digest() + body)
    _assert_works(load_parser(_SMALL, folder))
    assert trace.is_dir()


def test_nothing_is_saved_where_others_can_write(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    _assert_works(load_parser(_SMALL, shared))
    assert list(shared.iterdir()) == []


def test_where_nothing_can_be_saved_it_works_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _assert_works(load_parser(_SMALL, tmp_path / "file" / "grammar"))
    _assert_works(load_parser(_SMALL, None))


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert cache_dir("grammar") is None


def test_only_the_newest_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "_MAX_FILES", 2)
    first = _saved(folder)
    os.utime(first, (1, 1))
    load_parser(_OTHER, folder)
    load_parser(_SMALL + "\n// third", folder)
    assert len(list(folder.iterdir())) == 2 and not first.exists()


def test_a_faulty_grammar_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GrammarError):
        load_parser("start: NOWHERE", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_grammar_is_whole() -> None:
    parser = load_parser(grammar_text(), None)
    assert isinstance(parser.parse("BEGIN { x = 1; }"), ast.Script)
