#!/usr/bin/env bash
# finding: with lark's contextual lexer a keyword needs no end: "for x inside" reads as "for x in side"
# about: lark 1.3.1 (PyPI), parser="lalr" with its default lexer, "contextual"
# expected: the longest match wins, so that a keyword that is the start of a longer word is that word,
#     and a keyword is no name; this is what lexer="basic" does
# seen: where the parser's state allows no name, the keyword alone is tried and matches the start of the
#     word: "inside" is "in" and the name "side", "forx" is "for" and "x"; where only a name is allowed,
#     keywords are names
# needs: Debian 12, python3-venv, PyPI; 10 s
#
# Exits 0 when it is still so, 1 when it has changed, 3 when it could not be tried.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
sed -n '2,/^#$/s/^# //p' "$0"

not_tried() {
    [ ! -s "$work/log" ] || tail -n 5 "$work/log"
    echo "result: not tried: $*"
    exit 3
}

python3 -m venv "$work/venv" >"$work/log" 2>&1 || not_tried "no virtual environment"
"$work/venv/bin/pip" install -q --disable-pip-version-check lark==1.3.1 >"$work/log" 2>&1 ||
    not_tried "pip could not install"

"$work/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

from lark import Lark, UnexpectedInput

GRAMMAR = r"""
start: "for" NAME "in" NAME
NAME: /[a-z]+/
%ignore " "
"""
changed = []


def now(what, got, described):
    print(f"now: {what}: {got}")
    if got != described:
        changed.append(f"{what}: {got}, was {described}")


def parsed(text, **options):
    try:
        tree = Lark(GRAMMAR, parser="lalr", **options).parse(text)
    except UnexpectedInput:
        return "refused"
    return " ".join(tree.children)


print("versions: lark", version("lark"), "Python", sys.version.split()[0])
for text, described in (
    ("for x in side", "x side"),
    ("for x inside", "x side"),
    ("forx in side", "x side"),
    ("for for in in", "for in"),
):
    now(f"names of {text!r}, default lexer", parsed(text), described)
for text in ("for x inside", "forx in side", "for for in in"):
    now(f"names of {text!r}, basic lexer", parsed(text, lexer="basic"), "refused")
print("result: changed: " + "; ".join(changed) if changed else "result: unchanged")
sys.exit(bool(changed))
PYTHON
