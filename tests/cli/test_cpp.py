"""Scripts through the C preprocessor: the command line that it gets, and its failures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from probekit.cli.cpp import preprocess
from probekit.cli.errors import ScriptError
from probekit.session.options import Options


def _cpp(tmp_path: Path, body: str) -> str:
    path = tmp_path / "cpp"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_macros_and_folders_are_passed_after_d_s_own(tmp_path: Path) -> None:
    options = Options(
        cpppath=_cpp(tmp_path, 'printf "%s\\n" "$@"'), define=("FOO=1",), undef=("BAR",), incdir=("inc",), cpphdrs=True
    )
    words = preprocess("", "x.d", options).splitlines()
    assert words.index("-D__SUNW_D=1") < words.index("-DFOO=1") < words.index("-UBAR") < words.index("-Iinc")
    assert "-D__SUNW_D_VERSION=0x0100d000" in words
    assert words[-1] == "-H"


def test_the_first_line_of_an_executable_script_becomes_empty(tmp_path: Path) -> None:
    assert preprocess("#!/usr/sbin/dtrace -s\nBEGIN\n", "x.d", Options(cpppath=_cpp(tmp_path, "cat"))) == "\nBEGIN\n"
    assert preprocess("#!only", "x.d", Options(cpppath=_cpp(tmp_path, "cat"))) == ""


def test_line_marks_and_messages_name_the_script(tmp_path: Path, capsys: Any) -> None:
    body = "echo '# 1 \"<stdin>\"'; echo '<stdin>:1: odd' >&2"
    assert preprocess("", "x.d", Options(cpppath=_cpp(tmp_path, body))) == '# 1 "x.d"\n'
    assert capsys.readouterr().err == "x.d:1: odd\n"


def test_a_preprocessor_that_fails_or_is_missing_is_an_error_of_the_script(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="Preprocessor failed"):
        preprocess("", "x.d", Options(cpppath=_cpp(tmp_path, "exit 1")))
    with pytest.raises(ScriptError, match="cannot run"):
        preprocess("", "x.d", Options(cpppath=str(tmp_path / "nosuch")))


@pytest.mark.skipif(shutil.which("cpp") is None, reason="no C preprocessor")
def test_a_macro_is_replaced_by_the_real_preprocessor() -> None:
    assert "trace(5)" in preprocess("BEGIN { trace(N); }", "x.d", Options(define=("N=5",)))
