"""Read what the kernel knows of a task's files and program: ``cwd``, ``root``, ``d_path()``, ``execargs``.

    path_string  rdi: target; in spilled words: the path's start and root  -> the string; carry: fault, rax
    path_walk    r10d: 1 to write, 0 only to measure  -> r9: bytes of the path, -1 when it changed; carry: fault, rax
    cwd, root, execargs  rdi: target                  -> the string; carry: fault, rax
    d_path       rdi: target, rsi: a ``struct path``  -> the string; carry: fault, rax

The kernel's own ``d_path()`` takes locks that the probed code may hold. So the names are read here, from the file to
the root as ``prepend_path()`` does (fs/d_path.c): once to measure and once to write. With interrupts off the kernel
frees no directory meanwhile (RCU). A path that changes between the two walks is walked again.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.codegen.runtime.stack import spill
from probekit.codegen.runtime.strings import max_length, store_character
from probekit.errors import UnsupportedError
from probekit.guest.offsets import PathOffsets

__all__ = (
    "MAX_NAME",
    "MAX_NAMES",
    "ROUTINES",
)


MAX_NAMES = 2048
"""The most names in a path: PATH_MAX / 2."""

MAX_NAME = 255
"""The most bytes of a name: NAME_MAX."""

_TRIES = 8
_DELETED = b" (deleted)"

# Words that survive calls. copy_from_user uses word 0.
_MOUNT, _DENTRY, _ROOT_MOUNT, _ROOT_DENTRY, _TARGET, _TOTAL, _COUNT, _SUFFIX, _SUFFIX_END = range(1, 10)


def _offsets(context: CodegenContext, name: str) -> tuple[int, PathOffsets]:
    if context.task is None or context.kernel.paths is None:
        raise UnsupportedError(f"{name} needs the types of this kernel's file system layer", feature=name)
    return context.task.current, context.kernel.paths


def _path_walk(context: CodegenContext, address_of: AddressOf) -> str:
    """Walk from the dentry to the root.

    rsi: the dentry; r8: its mount; rdi: the dentry above; r9: bytes so far; r11d: how many names there may still be.
    """
    _, paths = _offsets(context, "cwd")
    load = _load_word(address_of)
    return f"""
        mov rsi, {spill(context, _DENTRY)}
        mov r8, {spill(context, _MOUNT)}
        xor r9d, r9d
        mov r11d, {MAX_NAMES}
        {_walk_suffix(context, address_of)}
    next:
        cmp rsi, {spill(context, _ROOT_DENTRY)}
        jne step
        cmp r8, {spill(context, _ROOT_MOUNT)}
        je done
    step:
        dec r11d
        jz deep
        {_leave_mount(context, address_of)}
    inner:
        lea rax, [rsi + {paths.parent:#x}]
        {load}
        cmp rax, rsi
        je done
        mov rdi, rax
        {_walk_name(context, address_of)}
    up:
        mov rsi, rdi
        jmp next
    done:
        clc
        ret
    changed:
        xor r9d, r9d
        dec r9
        clc
        ret
    deep:
        mov rax, rsi
    bad:
        stc
        ret
    """


def _load_word(address_of: AddressOf) -> str:
    """Load rax from the address in rax; go to ``bad`` where nothing is."""
    return f"call {address_of('load_8'):#x}; jb bad"


def _walk_suffix(context: CodegenContext, address_of: AddressOf) -> str:
    """Measure or write `` (deleted)`` for a dentry that has been removed; go on to ``next``."""
    _, paths = _offsets(context, "cwd")
    load = _load_word(address_of)
    return f"""
        lea rax, [rsi + {paths.hashed:#x}]
        {load}
        test rax, rax
        jnz next
        lea rax, [rsi + {paths.parent:#x}]
        {load}
        cmp rax, rsi
        je next
        mov r9d, {len(_DELETED)}
        test r10d, r10d
        jz next
        mov rax, {int.from_bytes(_DELETED[:8], "little"):#x}
        mov {spill(context, _SUFFIX)}, rax
        mov eax, {int.from_bytes(_DELETED[8:], "little"):#x}
        mov {spill(context, _SUFFIX_END)}, rax
        lea rdi, {spill(context, _SUFFIX).removeprefix("qword ptr ")}
        mov rdx, {spill(context, _TOTAL)}
        sub rdx, r9
        jb changed
        xor ecx, ecx
    mark:
        cmp rdx, {max_length(context):#x}
        jae next
        mov al, byte ptr [rdi + rcx]
        push rdi
        mov rdi, {spill(context, _TARGET)}
        mov byte ptr [rdi + rdx], al
        pop rdi
        inc rdx
        inc ecx
        cmp ecx, {len(_DELETED)}
        jb mark
    """


def _leave_mount(context: CodegenContext, address_of: AddressOf) -> str:
    """At a mount's root, go on at the mount point in the mount above, or to ``done``; elsewhere go to ``inner``."""
    _, paths = _offsets(context, "cwd")
    load = _load_word(address_of)
    return f"""
        lea rax, [r8 + {paths.mount_root:#x}]
        {load}
        cmp rax, rsi
        jne inner
        lea rax, [r8 + {paths.mount_parent:#x}]
        {load}
        add rax, {paths.mount:#x}
        cmp rax, r8
        je done
        mov rdi, rax
        lea rax, [r8 + {paths.mountpoint:#x}]
        {load}
        mov rsi, rax
        mov r8, rdi
        jmp next
    """


def _walk_name(context: CodegenContext, address_of: AddressOf) -> str:
    """Measure the dentry's name and its slash, and write as much of them as the string has room for."""
    _, paths = _offsets(context, "cwd")
    most = max_length(context)
    return f"""
        lea rax, [rsi + {paths.name_size:#x}]
        call {address_of("load_4"):#x}
        jb bad
        cmp eax, {MAX_NAME}
        ja deep
        lea r9, [r9 + rax + 1]
        test r10d, r10d
        jz up
        push rax
        lea rax, [rsi + {paths.name:#x}]
        call {address_of("load_8"):#x}
        pop rcx
        jb bad
        mov rsi, rax
        mov rdx, {spill(context, _TOTAL)}
        sub rdx, r9
        jb changed
        cmp rdx, {most:#x}
        jae up
        mov eax, {max(most - 1, 0):#x}
        sub eax, edx
        cmp ecx, eax
        jbe fits
        mov ecx, eax
    fits:
        push r8
        push r9
        push rdi
        mov rdi, {spill(context, _TARGET)}
        add rdi, rdx
        mov byte ptr [rdi], 0x2f
        inc rdi
        call {address_of("load_bytes"):#x}
        pop rdi
        pop r9
        pop r8
        jb bad
    """


def _path_string(context: CodegenContext, address_of: AddressOf) -> str:
    walk = f"call {address_of('path_walk'):#x}; jb bad"
    return f"""
        mov {spill(context, _TARGET)}, rdi
        mov {spill(context, _COUNT)}, {_TRIES}
    again:
        xor r10d, r10d
        {walk}
        mov {spill(context, _TOTAL)}, r9
        test r9, r9
        jz top
        mov r10d, 1
        {walk}
        mov rax, {spill(context, _TOTAL)}
        cmp r9, rax
        je end
        dec {spill(context, _COUNT)}
        jnz again
        mov rax, {spill(context, _DENTRY)}
    bad:
        stc
        ret
    top:
        mov rdi, {spill(context, _TARGET)}
        {store_character(context, "/")}
        clc
        ret
    end:
        cmp rax, {max_length(context):#x}
        jbe short
        mov eax, {max_length(context):#x}
    short:
        mov rdi, {spill(context, _TARGET)}
        mov byte ptr [rdi + rax], 0
        clc
        ret
    """


def _of_task(directory: str) -> Routine:
    """Return the routine of a directory of the current task: ``cwd`` as seen from the task's root, or ``root``."""

    def text(context: CodegenContext, address_of: AddressOf) -> str:
        current, paths = _offsets(context, directory)
        start = paths.cwd if directory == "cwd" else paths.root
        base = _set_root(context, paths) if directory == "cwd" else _set_no_root(context)
        return f"""
            mov rax, qword ptr gs:[{current:#x}]
            mov rax, qword ptr [rax + {paths.fs:#x}]
            test rax, rax
            jz nothing
            mov rcx, qword ptr [rax + {start + paths.path_mount:#x}]
            mov {spill(context, _MOUNT)}, rcx
            mov rcx, qword ptr [rax + {start + paths.path_dentry:#x}]
            mov {spill(context, _DENTRY)}, rcx
            {base}
            call {address_of("path_string"):#x}
            ret
        nothing:
            mov byte ptr [rdi], 0
            clc
            ret
        """

    return text


def _set_root(context: CodegenContext, paths: PathOffsets) -> str:
    """Let the walk end at the root of the task whose ``struct fs_struct`` is at rax."""
    return f"""
        mov rcx, qword ptr [rax + {paths.root + paths.path_mount:#x}]
        mov {spill(context, _ROOT_MOUNT)}, rcx
        mov rcx, qword ptr [rax + {paths.root + paths.path_dentry:#x}]
        mov {spill(context, _ROOT_DENTRY)}, rcx
    """


def _set_no_root(context: CodegenContext) -> str:
    """Let the walk end where the tree of mounts does."""
    return f"mov {spill(context, _ROOT_MOUNT)}, 0; mov {spill(context, _ROOT_DENTRY)}, 0"


def _d_path(context: CodegenContext, address_of: AddressOf) -> str:
    """Walk the path. An object that is in no tree, such as a pipe, has only the name of its dentry."""
    current, paths = _offsets(context, "d_path()")
    load = _load_word(address_of)
    return f"""
        lea rax, [rsi + {paths.path_mount:#x}]
        {load}
        mov {spill(context, _MOUNT)}, rax
        mov r8, rax
        lea rax, [rsi + {paths.path_dentry:#x}]
        {load}
        mov {spill(context, _DENTRY)}, rax
        mov rsi, rax
        lea rax, [r8 + {paths.mount_root:#x}]
        {load}
        cmp rax, rsi
        je tree
        lea rax, [rsi + {paths.parent:#x}]
        {load}
        cmp rax, rsi
        je alone
    tree:
        {_set_no_root(context)}
        mov rax, qword ptr gs:[{current:#x}]
        mov rax, qword ptr [rax + {paths.fs:#x}]
        test rax, rax
        jz absolute
        {_set_root(context, paths)}
    absolute:
        call {address_of("path_string"):#x}
        ret
    alone:
        lea rax, [rsi + {paths.name:#x}]
        {load}
        mov rsi, rax
        mov ecx, {max_length(context) + 1:#x}
        call {address_of("load_string"):#x}
        ret
    bad:
        stc
        ret
    """


def _execargs(context: CodegenContext, address_of: AddressOf) -> str:
    """Copy the words that the program was started with from its memory, with spaces for the zeros between them."""
    current, paths = _offsets(context, "execargs")
    return f"""
        mov rax, qword ptr gs:[{current:#x}]
        mov rax, qword ptr [rax + {paths.memory:#x}]
        test rax, rax
        jz nothing
        mov rsi, qword ptr [rax + {paths.arg_start:#x}]
        mov rcx, qword ptr [rax + {paths.arg_end:#x}]
        sub rcx, rsi
        jbe nothing
        cmp rcx, {max_length(context):#x}
        jbe fits
        mov ecx, {max_length(context):#x}
    fits:
        test ecx, ecx
        jz nothing
        mov {spill(context, _TARGET)}, rdi
        mov {spill(context, _COUNT)}, rcx
        push rax
        call {address_of("copy_from_user"):#x}
        pop rcx
        jb bad
        mov rdi, {spill(context, _TARGET)}
        mov rcx, {spill(context, _COUNT)}
    ends:
        cmp byte ptr [rdi + rcx - 1], 0
        jne words
        dec ecx
        jnz ends
    nothing:
        mov byte ptr [rdi], 0
        clc
        ret
    words:
        mov byte ptr [rdi + rcx], 0
    next:
        cmp byte ptr [rdi + rcx - 1], 0
        jne kept
        mov byte ptr [rdi + rcx - 1], 0x20
    kept:
        dec ecx
        jnz next
        clc
        ret
    bad:
        mov rdi, {spill(context, _TARGET)}
        mov byte ptr [rdi], 0
        stc
        ret
    """


ROUTINES: dict[str, Routine] = {
    "cwd": _of_task("cwd"),
    "d_path": _d_path,
    "execargs": _execargs,
    "path_string": _path_string,
    "path_walk": _path_walk,
    "root": _of_task("root"),
}
