"""Writes the reference part of docs/api.md from the code: signatures, fields, docstrings.

.venv/bin/python -m tests.docs.api_reference       rewrites the page
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
BEGIN, END = "<!-- The rest is written by tests/docs/api_reference.py. -->\n", "<!-- end -->\n"

_EVENTS = "probekit.consumer.events"
_LANG = "probekit.lang.diagnostics"

SECTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "Guests and runs": (
        ("probekit.session.api", "attach"),
        ("probekit.session.api", "Guest"),
        ("probekit.session.run", "Run"),
        ("probekit.session.options", "EngineName"),
    ),
    "Events": (
        *((_EVENTS, name) for name in ("Event", "ProbeFired", "ProbeIdentity")),
        ("probekit.probe.names", "ProbeName"),
        *((_EVENTS, name) for name in ("Attached", "Drop", "DropKind", "Fault", "ExitRequested", "Message")),
        *((_EVENTS, name) for name in ("Stats", "Costs", "Cost", "Flow")),
    ),
    "What a record holds": tuple(
        (_EVENTS, name)
        for name in (
            *("RecordItem", "TraceInt", "TraceString", "Printed", "Piece", "GuestText", "TraceBytes", "Dump"),
            *("StackFrames", "SymbolName", "TypedValue", "Table", "JoinedRow"),
            *("Command", "Reopened", "Truncated", "OptionSet"),
        )
    ),
    "Aggregations": tuple(
        (_EVENTS, name)
        for name in (
            *("Aggregation", "KeyKind", "Row", "KeyValue", "AggValue"),
            *("Average", "StdDev", "Quantize", "Histogram", "divide"),
        )
    ),
    "Errors": (
        *(
            ("probekit.errors", name)
            for name in (
                *(
                    "ProbekitError",
                    "TargetError",
                    "TargetLost",
                    "TargetTimeout",
                    "MachineRan",
                    "ProtocolError",
                    "MemoryAccessError",
                ),
                *(
                    "UnsupportedError",
                    "SymbolError",
                    "GuestError",
                    "GuestGone",
                    "GuestPaused",
                    "SafePointTimeout",
                    "ConflictError",
                    "BusyError",
                    "InUseError",
                    "DetachedError",
                ),
                *("JournalError", "Cancelled", "InternalError"),
            )
        ),
        (_LANG, "CompileError"),
        (_LANG, "Diagnostic"),
        ("probekit.session.checks", "NoMatchError"),
        ("probekit.session.options", "OptionError"),
        ("probekit.probe.names", "DescriptionError"),
    ),
}
"""The heading of each section, and the module and name of what it describes."""

_ROLE = re.compile(r":(?:class|func|meth|mod|data):`~?(?:probekit\.[\w.]*\.(?=[A-Z]))?([\w.]+)`")
_CODE = re.compile(r"``(.*?)``(?!`)")


def reference() -> str:
    """Return the reference, in Markdown."""
    parts: list[str] = []
    for heading, names in SECTIONS.items():
        parts.append(f"## {heading}\n")
        module = ""
        for place, name in names:
            if place != module:
                module = place
                parts.append(f"From `{module}`:\n" if module != "probekit.session.api" else "From `probekit`:\n")
            parts += _described(_statement(place, name))
    return "\n".join(parts)


@cache
def _statements(module: str) -> tuple[ast.stmt, ...]:
    return tuple(ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text()).body)


def _statement(module: str, name: str) -> tuple[ast.stmt, str]:
    """Return what defines a name at the top of a module, and the docstring after it where it is an assignment."""
    body = _statements(module)
    for at, found in enumerate(body):
        if isinstance(found, ast.ClassDef | ast.FunctionDef) and found.name == name:
            return found, ast.get_docstring(found) or ""
        if isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) == name:
            return found, _string(body[at + 1]) if at + 1 < len(body) else ""
    raise LookupError(f"{module} has no {name}")


def _string(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return ""


def _described(found: tuple[ast.stmt, str]) -> Iterator[str]:
    statement, text = found
    match statement:
        case ast.FunctionDef():
            yield f"```python\n{_signature(statement)}\n```\n"
            yield _markdown(text)
        case ast.ClassDef():
            yield from _class(statement, text)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield f"**`{name}`** = `{ast.unparse(value)}`".replace("'", '"') + f": {_markdown(text)}"
        case _:
            raise LookupError(ast.unparse(statement))


def _class(found: ast.ClassDef, text: str) -> Iterator[str]:
    fields = [node for node in found.body if isinstance(node, ast.AnnAssign) and not _is_private(node)]
    methods = [function for function in _public_functions(found) if not _is_property(function)]
    if fields:
        shown = ", ".join(f"{ast.unparse(f.target)}: {_type(f)}" for f in fields)
        yield f"**`{found.name}`**`({shown})`: {_markdown(text)}"
    else:
        bases = ", ".join(ast.unparse(base) for base in found.bases)
        parents = f"`({bases})`: " if bases else "\\\n"
        yield f"**`{found.name}`**{parents}{_markdown(text)}"
    if items := list(_attributes(found)):
        yield "".join(items)
    for function in methods:
        yield f"```python\n{_signature(function)}\n```\n"
        yield _markdown(ast.get_docstring(function) or "")


def _attributes(found: ast.ClassDef) -> Iterator[str]:
    """Yield a line for each documented field, attribute and property."""
    for statement, after in pairwise((*found.body, ast.Pass())):
        if isinstance(statement, ast.AnnAssign) and not _is_private(statement) and _string(after):
            yield _attribute(ast.unparse(statement.target), "", after)
    made = next((f for f in found.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
    for statement, after in pairwise((*(made.body if made is not None else ()), ast.Pass())):
        match statement:
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=annotation) if _string(after):
                yield _attribute(name, ast.unparse(annotation), after)
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Call(func=kind)) if _string(after):
                yield _attribute(name, ast.unparse(kind), after)
            case _:
                pass
    for function in _public_functions(found):
        if _is_property(function) and function.returns is not None:
            yield _attribute(function.name, ast.unparse(function.returns), function.body[0])


def _attribute(name: str, kind: str, after: ast.stmt) -> str:
    shown = f"{name}: {kind}" if kind else name
    return f"- `{shown}`: {_markdown(_string(after)).strip()}\n".replace("\n\n", " ")


def _type(field: ast.AnnAssign) -> str:
    default = "" if field.value is None else f" = {ast.unparse(field.value)}".replace("'", '"')
    return ast.unparse(field.annotation) + default


def _is_private(field: ast.AnnAssign) -> bool:
    return ast.unparse(field.target).startswith("_")


def _public_functions(found: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and not statement.name.startswith("_"):
            yield statement


def _is_property(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) in ("property", "cached_property") for decorator in function.decorator_list)


def _signature(function: ast.FunctionDef) -> str:
    returns = "" if function.returns is None else f" -> {ast.unparse(function.returns)}".replace("model.", "")
    arguments = [argument for argument in _arguments(function.args) if argument != "self"]
    line = f"{function.name}({', '.join(arguments)}){returns}"
    if len(line) <= 100:
        return line
    return f"{function.name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returns}"


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    """Yield each argument with its type and default, and the star before those that are given by name."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(plain, defaults, strict=True):
        yield _argument(argument, default)
    if arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument, default)


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = "" if argument.annotation is None else f": {ast.unparse(argument.annotation)}"
    shown = "" if default is None else f" = {ast.unparse(default)}".replace("'", '"')
    return f"{argument.arg}{kind}{shown}"


def _markdown(docstring: str) -> str:
    """Return a docstring with Markdown's code spans, one line for each paragraph."""
    text = _CODE.sub(lambda found: found[0] if "`" in found[1] else f"`{found[1]}`", _ROLE.sub(r"``\1``", docstring))
    paragraphs = [" ".join(line.strip() for line in part.splitlines()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs) + "\n"


def page(text: str) -> str:
    """Return the page with its reference as it should be."""
    head = text.partition(BEGIN)[0]
    return head + BEGIN + "\n" + reference() + "\n" + END


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
