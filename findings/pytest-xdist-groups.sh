#!/usr/bin/env bash
# finding: with pytest 9.2 the groups of pytest-xdist have no effect, and nothing says so
# about: pytest 9.2.0 with pytest-xdist 3.8.0 (PyPI); right with pytest 9.1.1
# expected: with "--dist loadgroup", tests that carry the same xdist_group mark all run in one process
# seen: they are spread over all processes, without a warning; a fixture that is costly, or that only one
#     process may have, is made in each. Under pytest 9.1.1 the same xdist keeps them together
# needs: Debian 12, python3-venv, PyPI; 20 s
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

mkdir "$work/tests"
cat >"$work/tests/test_group.py" <<'PYTHON'
import time
from pathlib import Path

import pytest


@pytest.mark.xdist_group("guest")
@pytest.mark.parametrize("number", range(12))
def test_in_group(number, worker_id):
    time.sleep(0.05)
    with Path("workers").open("a") as file:
        file.write(worker_id + "\n")
PYTHON

# workers VERSION: how many of two processes ran the tests of one group.
workers() {
    "$work/venv/bin/pip" install -q --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0 >"$work/log" 2>&1 ||
        not_tried "pip could not install"
    (cd "$work/tests" && rm -f workers &&
        PYTEST_ADDOPTS='' "$work/venv/bin/python" -m pytest -q -n 2 --dist loadgroup -p no:cacheprovider) \
        >"$work/log" 2>&1 ||
        not_tried "pytest $1 failed"
    [ "$(wc -l <"$work/tests/workers")" -eq 12 ] || not_tried "pytest $1 did not run 12 tests"
    grep -ic warning "$work/log" >"$work/warnings" || :
    sort -u "$work/tests/workers" | wc -l
}

python3 -m venv "$work/venv" >"$work/log" 2>&1 || not_tried "no virtual environment"
older=$(workers 9.1.1) || { echo "$older"; exit 3; }
newer=$(workers 9.2.0) || { echo "$newer"; exit 3; }
warnings=$(cat "$work/warnings")

echo "versions: $("$work/venv/bin/python" --version), pytest-xdist 3.8.0"
echo "now: processes that ran the group, pytest 9.1.1: $older"
echo "now: processes that ran the group, pytest 9.2.0: $newer"
echo "now: lines with a warning, pytest 9.2.0: $warnings"
if [ "$older $newer $warnings" = "1 2 0" ]; then
    echo "result: unchanged"
else
    echo "result: changed: $older, $newer and $warnings; they were 1, 2 and 0"
    exit 1
fi
