"""Make the parser of grammar/*.lark with Lark, and keep it on disk for the next run.

Lark takes a quarter of a second to turn the grammar into its tables. So the finished parser is saved
(``Lark.save``) in ``$XDG_CACHE_HOME/probekit/grammar`` (``~/.cache/...``) and loaded from there
(``Lark.load``). The file's name is a digest of everything that the tables depend on: the grammar, Lark's options,
and the versions of Lark and Python.

A saved parser is a pickle, and a pickle can run code. A file is loaded only if it and its folder belong to this
user, nobody else can write to them, and its checksum is right. Otherwise the parser is made anew and saved again.
Where it cannot be saved (a read-only home) every run makes it.
"""

from __future__ import annotations

import io
import os
import pickle
import stat
import sys
import tempfile
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import lark
from lark import Lark

from probekit.lang.parse.tree_builder import TreeBuilder
from probekit.resources import cache_dir, data_dir

__all__ = ("grammar_parser", "grammar_text", "load_parser")

_FILES = ("lexical.lark", "types.lark", "expr.lark", "d.lark")
"""Read in this order and joined: all rules share one namespace."""

_OPTIONS = {"parser": "lalr", "lexer": "contextual", "maybe_placeholders": True}
_SUFFIX = ".lark-parser"
_DIGEST = 32
_MAX_FILE = 4 << 20
_MAX_FILES = 8


@lru_cache(maxsize=1)
def grammar_parser() -> Lark:
    """Return the parser of the D grammar. A process loads it once."""
    return load_parser(grammar_text(), cache_dir("grammar"))


def grammar_text() -> str:
    """Return the whole grammar as text."""
    folder = data_dir("grammar")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in _FILES)


def load_parser(grammar: str, folder: Path | None) -> Lark:
    """Load the parser of a grammar from ``folder``, or make it and save it there.

    The parser calls a :class:`TreeBuilder` while it parses. ``folder``: None for no cache. Raises
    :class:`lark.exceptions.GrammarError` for a faulty grammar.
    """
    key = _key(grammar)
    saved = None if folder is None else _read(folder, key)
    if saved is not None:
        return saved
    made = Lark(grammar, **_OPTIONS, transformer=TreeBuilder())
    if folder is not None:
        _write(folder, key, made)
    return made


def _key(grammar: str) -> str:
    """Return a digest of everything that a saved parser depends on."""
    python = sys.implementation.cache_tag or sys.version
    parts = (TreeBuilder.__module__, lark.__version__, python, repr(_OPTIONS), grammar)
    return sha256("\n".join(parts).encode()).hexdigest()


def _read(folder: Path, key: str) -> Lark | None:
    """Load the saved parser. Returns None if there is none that can be trusted."""
    try:
        # NONBLOCK: opening a pipe of that name would wait for a writer.
        handle = os.open(folder / f"{key}{_SUFFIX}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not (stat.S_ISREG(status.st_mode) and _is_private(status) and _is_private_folder(folder)):
                return None
            data = file.read(_MAX_FILE)
        if data[:_DIGEST] != _digest(key, data[_DIGEST:]):
            return None
        return Lark.load(io.BytesIO(data[_DIGEST:]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, EOFError, pickle.PickleError):
        return None


def _write(folder: Path, key: str, parser: Lark) -> None:
    """Save a parser, by rename, and remove the oldest ones. Does nothing where that is not possible."""
    body = io.BytesIO()
    parser.save(body)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private_folder(folder):
            return
        handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(key, body.getvalue()) + body.getvalue())
            Path(name).replace(folder / f"{key}{_SUFFIX}")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        for path in sorted(folder.glob(f"*{_SUFFIX}"), key=lambda p: p.lstat().st_mtime_ns)[:-_MAX_FILES]:
            path.unlink(missing_ok=True)
    except OSError:
        return


def _digest(key: str, body: bytes) -> bytes:
    return sha256(key.encode() + body).digest()


def _is_private(status: os.stat_result) -> bool:
    """Tell whether a file or folder belongs to this user and nobody else can write to it."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_private_folder(folder: Path) -> bool:
    """Tell whether nobody else can put a file into a folder, or put another folder in its place."""
    real = folder.resolve()
    return _is_private(real.stat()) and all(
        not mode & stat.S_IWOTH or mode & stat.S_ISVTX for mode in (parent.stat().st_mode for parent in real.parents)
    )
