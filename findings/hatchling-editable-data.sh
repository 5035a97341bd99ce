#!/usr/bin/env bash
# finding: data that hatchling puts into a package by force-include is not in the package when it is installed with -e
# about: hatchling 1.33.0 (PyPI), [tool.hatch.build.targets.wheel.force-include], and pip
# expected: "pip install ." and "pip install -e ." give a package in which importlib.resources finds the
#     same files, or the second one says that it cannot
# seen: after -e the file is not found. It is installed all the same, into a folder of the package's name
#     in site-packages, which Python does not look into since the package is found in the source tree
# needs: Debian 12, python3-venv, PyPI; 30 s
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

mkdir -p "$work/source/parcel" "$work/source/shared"
touch "$work/source/parcel/__init__.py"
echo content >"$work/source/shared/table.txt"
cat >"$work/source/pyproject.toml" <<'TOML'
[build-system]
requires = ["hatchling==1.33.0"]
build-backend = "hatchling.build"

[project]
name = "parcel"
version = "1"

[tool.hatch.build.targets.wheel]
packages = ["parcel"]

[tool.hatch.build.targets.wheel.force-include]
"shared" = "parcel/shared"
TOML

# installed OPTION...: whether the package has its file when pip has installed it in this way.
installed() {
    rm -rf "$work/venv"
    python3 -m venv "$work/venv" >"$work/log" 2>&1 || not_tried "no virtual environment"
    "$work/venv/bin/pip" install -q --disable-pip-version-check "$@" >"$work/log" 2>&1 ||
        not_tried "pip could not install"
    (cd / && "$work/venv/bin/python" - <<'PYTHON'
from importlib.resources import files

print(files("parcel").joinpath("shared", "table.txt").is_file())
PYTHON
    )
}

plain=$(installed "$work/source") || { echo "$plain"; exit 3; }
editable=$(installed -e "$work/source") || { echo "$editable"; exit 3; }
aside=False
[ -z "$(find "$work/venv" -path '*/site-packages/parcel/shared/table.txt')" ] || aside=True

pip=$("$work/venv/bin/pip" --version | cut -d ' ' -f 1-2)
echo "versions: hatchling 1.33.0, $pip, $("$work/venv/bin/python" --version)"
echo "now: parcel has shared/table.txt after pip install .: $plain"
echo "now: parcel has shared/table.txt after pip install -e .: $editable"
echo "now: site-packages has parcel/shared/table.txt after pip install -e .: $aside"
if [ "$plain $editable $aside" = "True False True" ]; then
    echo "result: unchanged"
else
    echo "result: changed: $plain, $editable and $aside; they were True, False and True"
    exit 1
fi
