"""A world for clauses to run in: everything they read is given, everything they do is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.buffers.aggs import AggKey
from probekit.interp.aggs import Aggregations
from probekit.interp.run import Outcome, Value, run_clause
from probekit.interp.state import ProgramState
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.ir.verify import verify_program

BUILTINS: dict[str, Value] = {
    "cpu": 1,
    "epid": 9,
    "execname": b"bash",
    "id": 33,
    "pid": 7,
    "probefunc": b"sys_read",
    "probemod": b"vmlinux",
    "probename": b"entry",
    "probeprov": b"fbt",
    "tid": 8,
    "timestamp": 1 << 63,
}


@dataclass
class World:
    """A :class:`probekit.interp.run.EvalContext` for tests."""

    program: Program
    args: tuple[int, ...] = (0,) * 10
    builtins: dict[str, Value] = field(default_factory=lambda: dict(BUILTINS))
    variables: dict[int, Value] = field(default_factory=dict)
    callers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.aggs = Aggregations(self.program.aggregations)
        self.state = ProgramState(self.program)

    def arg(self, index: int) -> int:
        return self.args[index]

    def builtin(self, name: str) -> Value:
        return self.builtins[name]

    def load(self, var: int) -> Value:
        return self.variables.get(var, 0)

    def store(self, var: int, value: Value) -> None:
        self.variables[var] = value

    def aggregate(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        self.aggs.update(agg, key, value, weight)

    def progenyof(self, pid: int) -> bool:
        return pid == self.builtins["pid"]

    def stack(self, frames: int) -> bytes:
        return b"".join(addr.to_bytes(8, "little") for addr in self.callers[:frames])

    def speculation(self) -> int:
        return 1

    def run(self) -> list[Outcome]:
        return [run_clause(clause, self.program, self, self.state) for clause in self.program.clauses]


def world(text: str, *args: int) -> World:
    """Compile, verify, and a world with these arguments."""
    program = compile_program(text, allow_bare=True)
    assert verify_program(program) == []
    return World(program, args=(*args, *[0] * (10 - len(args))))


def run(text: str, *args: int) -> Outcome:
    """The outcome of a script's only clause."""
    (outcome,) = world(text, *args).run()
    return outcome


def value(expr: str, *args: int, size: int = 8) -> int:
    """A signed expression's value, as ``trace()`` records it in ``size`` bytes."""
    record = run(f"BEGIN {{ trace({expr}); }}", *args).record
    assert record is not None
    return int.from_bytes(record[:size], "little", signed=True)
