"""Modules with markers: what the header makes the compiler do, and what it makes it refuse."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from probekit.isa.decode import decode_run
from vm import kernels, module_build
from vm.errors import VmError
from vm.paths import SOURCES

KERNEL = "6.1-cloud"


def _compile(tmp_path: Path, body: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A C file that includes the header, outside of any kernel."""
    source = tmp_path / "x.c"
    source.write_text(f"#include <probekit/marker.h>\n{body}\n")
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-pie", "-mcmodel=kernel", *flags]
    include = str(SOURCES / "include")
    return subprocess.run([*command, "-I", include, "-c", "-o", str(tmp_path / "x.o"), str(source)],
                          capture_output=True, text=True, check=False)  # fmt: skip


def _text(tmp_path: Path, symbol: str) -> list[bytes]:
    """The instructions of a function."""
    with (tmp_path / "x.o").open("rb") as stream:
        elf = ELFFile(stream)
        (found,) = elf.get_section_by_name(".symtab").get_symbol_by_name(symbol)
        code = elf.get_section(found["st_shndx"]).data()[found["st_value"] : found["st_value"] + found["st_size"]]
    return [insn.raw for insn in decode_run(code, 0)]


def test_a_disabled_marker_is_a_load_immediate_and_a_branch(tmp_path: Path) -> None:
    done = _compile(tmp_path, 'int f(int a) { trace_mark(here, "a %d", a); return a; }')
    assert done.returncode == 0, done.stderr
    code = [raw for raw in _text(tmp_path, "f") if raw[0] not in (0x90, 0xF3)]  # nop, endbr64
    loads = [at for at, raw in enumerate(code) if len(raw) == 2 and raw[0] in range(0xB0, 0xB4) and raw[1] == 0]
    assert len(loads) == 1
    load, test, branch = code[loads[0] : loads[0] + 3]
    assert test[0] == 0x84 and branch[0] in (0x75, 0x0F), (load, test, branch)
    # Nothing else on the way: before and behind is what the function does without the marker.
    assert _compile(tmp_path, "int f(int a) { return a; }").returncode == 0
    assert len(_text(tmp_path, "f")) <= 3


@pytest.mark.parametrize("level", ["-O1", "-O2", "-O3"])
def test_sections(tmp_path: Path, level: str) -> None:
    body = """
        static inline void both(int a) { trace_mark(twice, "a %d", a); }
        void f(int a) { both(a); }
        void g(int a) { both(a + 1); _trace_mark(PK_GENERIC, plain, ""); }
    """
    assert _compile(tmp_path, body, level).returncode == 0
    with (tmp_path / "x.o").open("rb") as stream:
        elf = ELFFile(stream)
        sizes = {name: elf.get_section_by_name(name)["sh_size"] for name in ("__pk_markers", "__pk_markers_data")}
        strings = elf.get_section_by_name("__pk_markers_strings").data()
    assert sizes == {"__pk_markers": 2 * 24, "__pk_markers_data": 2 * 56}
    assert {b"twice", b"plain", b"a %d"} <= set(strings.split(b"\0"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('trace_mark(m, "%d", "text")', "format"),
        ('trace_mark(m, "%s", a)', "format"),
        ('trace_mark(m, "%d %d", a)', "format"),
        ('trace_mark(m, "%d", a, a)', "format"),
        ('trace_mark(m, "%llu", a)', "format"),
        ('_trace_mark(PK_GENERIC, m, "%p", a)', "format"),
        ('trace_mark(m, "%d %d %d %d %d %d %d %d %d %d %d", a, a, a, a, a, a, a, a, a, a, a)', "__pk_map"),
    ],
)
def test_a_wrong_format_is_no_program(tmp_path: Path, call: str, said: str) -> None:
    done = _compile(tmp_path, f"void f(int a) {{ {call}; }}")
    assert done.returncode != 0 and said in done.stderr


def test_arguments_of_every_kind(tmp_path: Path) -> None:
    body = """
        struct s;
        int f(char c, short h, unsigned u, long l, unsigned long long ll, struct s *p, const char *s, _Bool b) {
            trace_mark(none, "");
            return trace_mark_on(PK_OPTIMIZED, all, "%c %hd %u %ld %llu %p %s %d %% %#x", c, h, u, l, ll, (void *)p, s,
                                 b, 1u);
        }
    """
    done = _compile(tmp_path, body)
    assert done.returncode == 0, done.stderr


def test_modules_are_built_for_every_kernel() -> None:
    assert module_build.names() == ("pk_broken", "pk_demo")
    kernel = kernels.fetch(KERNEL)
    data = module_build.build("pk_demo", kernel)
    assert data == module_build.build("pk_demo", kernel)  # from the cache
    elf = ELFFile(BytesIO(data))
    info = elf.get_section_by_name(".modinfo").data()
    assert f"vermagic={kernel.release} ".encode() in info
    assert elf.get_section_by_name("__pk_markers_data")["sh_size"] // 56 > 1000
    assert elf.get_section_by_name(".debug_info") is None
    with pytest.raises(VmError, match="pk_demo"):
        module_build.build("no_such", kernel)
