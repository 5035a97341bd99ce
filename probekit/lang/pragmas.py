"""Check ``#pragma D attributes|binding|depends_on`` against what the program has named.

#pragma D attributes Stable/Stable/ISA x     x must be an inline, variable, type or translator of the script
#pragma D binding "1.6.1" x
#pragma D depends_on library net.d
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from probekit.lang.attributes import parse_attributes
from probekit.lang.builtins import FUNCTIONS, VARIABLES
from probekit.lang.diagnostics import refuse
from probekit.lang.scan import Pragma
from probekit.lang.scope import Scope

__all__ = ("check_pragmas",)

_PARTS = ("provider", "module", "function", "name", "args")
_VERSION = re.compile(r'"[0-9]{1,2}\.[0-9]{1,4}(?:\.[0-9]{1,4})?"')
_LIBRARIES = frozenset(
    f"{name}.d"
    for name in (
        *("cpc", "dtrace", "errno", "fc", "io", "ip", "iscsi", "lockstat", "net", "nfs", "procfs", "regs", "rawtp"),
        *("sched", "scsi", "signal", "socket", "srp", "tcp", "udp", "unistd", "vmlinux"),
    )
)
_PROVIDERS = frozenset(("dtrace", "profile", "fbt", "syscall", "sdt", "proc", "sched", "io", "lockstat", "rawtp"))


def check_pragmas(pragmas: Iterable[Pragma], scope: Scope, library: int = 0) -> None:
    """Refuse the first pragma that is malformed or names what does not exist. Raises :class:`Refusal`.

    ``library``: the offset where the D libraries end and the script begins.
    """
    for pragma in pragmas:
        match pragma.words:
            case ("attributes", *words):
                _attributes(pragma, list(words), scope)
            case ("binding", *words):
                _binding(pragma, list(words), scope)
            case ("depends_on", *words):
                _depends(pragma, list(words), in_library=pragma.span.start < library)


def _attributes(pragma: Pragma, words: list[str], scope: Scope) -> None:
    if len(words) < 2:
        raise refuse("D_PRAGMA_MALFORM", pragma.span, "attributes are written Stable/Stable/Common name")
    if parse_attributes(words[0]) is None:
        raise refuse("D_PRAGMA_INVAL", pragma.span, f"{words[0]} are no attributes: write Stable/Stable/Common")
    if words[1] == "provider":
        shown = "|".join(_PARTS)
        if len(words) != 4:
            message = f"attributes of a provider are written provider name {shown}"
            raise refuse("D_PRAGMA_MALFORM", pragma.span, message)
        if words[2] not in scope.providers:
            raise refuse("D_PRAGMA_UNUSED", pragma.span, f"provider {words[2]} is not declared")
        if words[3] not in _PARTS:
            raise refuse("D_PRAGMA_INVAL", pragma.span, f"a provider has no {words[3]}: write {shown}")
        return
    _name(pragma, words[1], scope)


def _binding(pragma: Pragma, words: list[str], scope: Scope) -> None:
    if len(words) < 2 or not words[0].startswith('"'):
        raise refuse("D_PRAGMA_MALFORM", pragma.span, 'a binding is written "1.6.1" name')
    if _VERSION.fullmatch(words[0]) is None:
        raise refuse("D_PRAGMA_INVAL", pragma.span, f"{words[0]} is no version")
    _name(pragma, words[1], scope)


def _name(pragma: Pragma, name: str, scope: Scope) -> None:
    if name in VARIABLES or name in FUNCTIONS:
        raise refuse("D_PRAGMA_SCOPE", pragma.span, f"{name} is D's own, and no pragma changes it")
    known = (
        name in scope.inlines
        or name in scope.types.typedefs
        or scope.variable("global", name) is not None
        or any(t.target.name == name or t.target.alias == name for t in scope.translators)
    )
    if not known:
        raise refuse("D_PRAGMA_UNUSED", pragma.span, f"{name} is not defined, so this pragma changes nothing")


def _depends(pragma: Pragma, words: list[str], *, in_library: bool) -> None:
    if len(words) != 2:
        raise refuse("D_PRAGMA_MALFORM", pragma.span, "a dependency is written library|module|provider name")
    kind, name = words
    known = {"library": name in _LIBRARIES, "module": name == "vmlinux", "provider": name in _PROVIDERS}
    if kind not in known:
        raise refuse("D_PRAGMA_INVAL", pragma.span, f"a program cannot depend on a {kind}")
    if kind == "library" and not in_library:
        raise refuse("D_PRAGMA_DEPEND", pragma.span, "only a library may depend on a library: all of them are read")
    if not known[kind]:
        raise refuse("D_PRAGMA_DEPEND", pragma.span, f"there is no {kind} {name}")
