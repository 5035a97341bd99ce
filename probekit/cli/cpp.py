"""Passes scripts through the system's C preprocessor, for ``-C``.

cpp -D__SUNW_D=1 ... -DFOO -Iinc < script
"""

from __future__ import annotations

from probekit.cli.errors import ScriptError
from probekit.output.streams import process_output
from probekit.session.options import Options

__all__ = ("D_VERSION", "preprocess")

D_VERSION = (1, 13, 0)
"""The version of the D language, as ``-V`` shows it and ``__SUNW_D_VERSION`` encodes it."""

_STRICT = {"a": ("-std=gnu99",), "c": ("-std=c99", "-pedantic"), "s": ("-traditional-cpp",), "t": ("-std=gnu99",)}


def preprocess(text: str, name: str, options: Options) -> str:
    """Return the output of the preprocessor, with its ``# line`` marks. A ``#!`` line becomes empty.

    ``name``: the script's name in messages. Raises :class:`ScriptError`.
    """
    if text.startswith("#!"):
        text = text[text.find("\n") :] if "\n" in text else ""
    import subprocess  # slow to import

    command = _command(options)
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="surrogateescape", check=False
        )
    except OSError as error:
        raise ScriptError(f"failed to compile script {name}: cannot run {command[0]}: {error.strerror}") from error
    if done.stderr:
        process_output().say(done.stderr.replace("<stdin>", name))
    if done.returncode:
        raise ScriptError(f"failed to compile script {name}: Preprocessor failed to process input program")
    return done.stdout.replace('"<stdin>"', f'"{name}"')


def _command(options: Options) -> list[str]:
    import platform

    major, minor, micro = D_VERSION
    predefined = (
        "__linux",
        "__Linux",
        "__unix",
        "__SVR4",
        "__amd64",
        f"__{platform.machine()}",
        "__SUNW_D=1",
        "__SUNW_D_64",
        f"__SUNW_D_VERSION={major << 24 | minor << 12 | micro:#010x}",
    )
    return [
        options.cpppath,
        *(("-undef",) if options.stdc == "s" else ()),
        *_STRICT[options.stdc],
        "-U__GNUC__",
        *(f"-D{text}" for text in predefined),
        *(f"-D{text}" for text in options.define),
        *(f"-U{text}" for text in options.undef),
        *(f"-I{text}" for text in options.incdir),
        *(("-H",) if options.cpphdrs else ()),
        *options.cppargs,
    ]
