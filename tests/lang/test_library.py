"""What D's own libraries declare, and when a script gets it."""

from __future__ import annotations

import pytest

from probekit.ir.build import compile_program
from probekit.lang.library import LIBRARY, TYPES, is_named_in


@pytest.mark.parametrize("name", ["curcpu", "curpsinfo", "curlwpsinfo", *TYPES])
def test_a_script_that_names_a_part_gets_the_library(name: str) -> None:
    assert is_named_in(f"BEGIN {{ trace({name}->x); }}")


@pytest.mark.parametrize("text", ["BEGIN { trace(cpu); }", "BEGIN { mycurcpu = 1; }", "BEGIN { curcpus = 1; }", ""])
def test_other_scripts_do_not(text: str) -> None:
    assert not is_named_in(text)


@pytest.mark.parametrize("name", TYPES)
def test_each_type_is_declared_and_has_its_translator(name: str) -> None:
    assert f"}} {name};" in LIBRARY
    assert f"translator {name} <" in LIBRARY


@pytest.mark.parametrize("member", ["curcpu->cpu_id", "curpsinfo->pr_psargs", "curlwpsinfo->pr_lwpid"])
def test_a_member_compiles_to_what_its_translator_says(member: str) -> None:
    assert compile_program(f"BEGIN {{ trace({member}); }}").clauses
