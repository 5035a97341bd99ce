"""Macro variables."""

from __future__ import annotations

import pytest

from probekit.ir.build import compile_program
from probekit.ir.ops import Int, Str
from probekit.lang.diagnostics import CompileError


def _constants(text: str, *args: str, default_args: bool = False) -> list[int | bytes]:
    program = compile_program(
        text, args=("script.d", *args), macros={"target": 42, "pid": 7}, default_args=default_args
    )
    return [op.value for block in program.clauses[0].blocks for op in block.ops if isinstance(op, (Int, Str))]


def _tags(text: str, *args: str) -> list[str]:
    with pytest.raises(CompileError) as caught:
        _constants(text, *args)
    return [d.tag for d in caught.value.diagnostics]


def test_values() -> None:
    assert _constants("BEGIN { trace($target); trace($1); trace($$1); trace($$2); }", "12", 'a "b"\\') == [
        42,
        12,
        b"12",
        b'a "b"\\',
    ]


def test_arguments_are_tokens() -> None:
    assert _constants("BEGIN { trace($1); }", "-0x10") == [-16]
    assert _constants("BEGIN { trace($1); }", '"text"') == [b"text"]
    program = compile_program("BEGIN { trace($1); }", args=("s", "execname"))
    assert program.clauses[0].record is not None
    assert program.clauses[0].record.fields[0].kind == "string"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("1); exit(0", b"1); exit(0"),
        ("a b", b"a b"),
        ('"quoted"', b"quoted"),
        ('in "the" middle', b'in "the" middle'),
        ("a\\tb", b"a\tb"),
        ("end\\", b"end\\"),
        ("", b""),
    ],
)
def test_what_is_no_number_and_no_word_is_a_string(argument: str, value: bytes) -> None:
    assert _constants("BEGIN { trace($1); }", argument) == [value]


def test_in_probe_descriptions() -> None:
    program = compile_program("pid$target:$1:x*:$$2 { }", args=("s", "a.out", "entry"), macros={"target": 42})
    assert str(program.clauses[0].probes[0]) == "pid42:a.out:x*:entry"


def test_undefined_and_unused() -> None:
    assert _tags("BEGIN { trace($2); }", "1") == ["D_MACRO_UNDEF"]
    assert _tags("BEGIN { trace($ppid); }") == ["D_MACRO_UNDEF"]
    assert _tags("BEGIN { trace($1); }", "1", "2") == ["D_MACRO_UNUSED"]


def test_default_arguments() -> None:
    assert _constants("BEGIN { trace($3); trace($$4); }", default_args=True) == [0, b""]
    assert _constants("#pragma D option defaultargs\nBEGIN { trace($3); trace($$4); }", "unused") == [0, b""]
