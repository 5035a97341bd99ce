"""``#pragma D attributes|binding|depends_on``: checked against what the program has named.

#pragma D attributes Stable/Stable/ISA x     x must be an inline, variable, type or translator of the script
#pragma D binding "1.6.1" x
#pragma D depends_on library net.d
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from probekit.lang.diagnostics import refuse
from probekit.lang.scan import Pragma
from probekit.lang.scope import Scope

__all__ = ("check_pragmas",)

_STABILITY = ("internal", "private", "obsolete", "external", "unstable", "evolving", "stable", "standard")
_CLASSES = ("unknown", "cpu", "platform", "group", "isa", "common")
_PARTS = ("provider", "module", "function", "name", "args")
_VERSION = re.compile(r'"([0-9]{1,3})(?:\.([0-9]{1,3}))?(?:\.([0-9]{1,3}))?"')
_NEWEST = (2, 0, 5)
_LIBRARIES = frozenset(
    f"{name}.d"
    for name in (
        *("cpc", "dtrace", "errno", "fc", "io", "ip", "iscsi", "lockstat", "net", "nfs", "procfs", "regs", "rawtp"),
        *("sched", "scsi", "signal", "socket", "srp", "tcp", "udp", "unistd", "vmlinux"),
    )
)
_PROVIDERS = frozenset(("dtrace", "profile", "fbt", "syscall", "sdt", "proc", "sched", "io", "lockstat", "rawtp"))


def check_pragmas(pragmas: Iterable[Pragma], scope: Scope) -> None:
    """Refuse the first that is malformed or names what does not exist. Raises :class:`Refusal`."""
    for pragma in pragmas:
        match pragma.words:
            case ("attributes", *words):
                _attributes(pragma, list(words), scope)
            case ("binding", *words):
                _binding(pragma, list(words), scope)
            case ("depends_on", *words):
                _depends(pragma, list(words))


def _attributes(pragma: Pragma, words: list[str], scope: Scope) -> None:
    parts = words[0].lower().split("/") if words else []
    good = len(parts) == 3 and parts[0] in _STABILITY and parts[1] in _STABILITY and parts[2] in _CLASSES
    if not good or len(words) < 2:
        raise refuse("D_PRAGMA_MALFORM", pragma.span, "attributes are written Stable/Stable/Common name")
    if words[1] == "provider":
        if len(words) != 4 or words[3] not in _PARTS:
            message = "attributes of a provider are written provider name provider|module|function|name|args"
            raise refuse("D_PRAGMA_MALFORM", pragma.span, message)
        if words[2] not in scope.providers:
            raise refuse("D_PRAGMA_UNUSED", pragma.span, f"provider {words[2]} is not declared")
        return
    if len(words) != 2:
        raise refuse("D_PRAGMA_MALFORM", pragma.span, "attributes take one name")
    _name(pragma, words[1], scope)


def _binding(pragma: Pragma, words: list[str], scope: Scope) -> None:
    found = _VERSION.fullmatch(words[0]) if words else None
    if found is None or len(words) != 2:
        raise refuse("D_PRAGMA_MALFORM", pragma.span, 'a binding is written "1.6.1" name')
    version = tuple(int(part or 0) for part in found.groups())
    if version > _NEWEST:
        raise refuse("D_PRAGMA_INVAL", pragma.span, f"there is no version {words[0]} of D")
    _name(pragma, words[1], scope)


def _name(pragma: Pragma, name: str, scope: Scope) -> None:
    known = (
        name in scope.inlines
        or name in scope.types.typedefs
        or scope.variable("global", name) is not None
        or any(t.target.name == name or t.target.alias == name for t in scope.translators)
    )
    if not known:
        raise refuse("D_PRAGMA_UNUSED", pragma.span, f"{name} is not defined, so this pragma changes nothing")


def _depends(pragma: Pragma, words: list[str]) -> None:
    if len(words) != 2:
        raise refuse("D_PRAGMA_MALFORM", pragma.span, "a dependency is written library|module|provider name")
    kind, name = words
    known = {"library": name in _LIBRARIES, "module": name == "vmlinux", "provider": name in _PROVIDERS}
    if kind not in known:
        raise refuse("D_PRAGMA_INVAL", pragma.span, f"a program cannot depend on a {kind}")
    if not known[kind]:
        raise refuse("D_PRAGMA_DEPEND", pragma.span, f"there is no {kind} {name}")
