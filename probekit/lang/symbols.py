"""Check kernel symbols: `` `jiffies ``, ``ext4`ext4_mount``, ``&`init_task``.

    &`init_task                ->  its address, a void * (BTF types only per-CPU variables)
    *(unsigned long *)&`jiffies ->  its value
    `runqueues                 ->  struct rq, at the address plus the CPU's own offset
    `vfs_read                  ->  the function's address

The value of a variable without a known type is refused with D_SYM_NOTYPES, as in DTrace; its address is not.
"""

from __future__ import annotations

from probekit.lang import ast, typed
from probekit.lang.diagnostics import refuse
from probekit.lang.kernelside import NoKernel, TypedSymbol
from probekit.lang.scope import Scope
from probekit.lang.typed import TypedExpr
from probekit.lang.types import INT, MACHINE_POINTER, VOID_POINTER, FuncType, PointerType
from probekit.lang.values import FixedPlace, Value, load_memory

__all__ = ("PERCPU_OFFSET", "kernel_symbol", "symbol_address")

PERCPU_OFFSET = "percpu_offset"
"""The IR's name for the offset that turns a per-CPU address into an address of this CPU."""


def kernel_symbol(expr: ast.SymbolExpr, scope: Scope) -> Value:
    """Check a symbol and load its value."""
    symbol = _find(expr, scope)
    if symbol.place == "function":
        return _function(symbol)
    if symbol.type is None:
        message = f"nothing tells the type of {expr.text}"
        raise refuse("D_SYM_NOTYPES", expr.span, message, f"say what is there: *(long *)&{expr.text}")
    return load_memory(_address(symbol), symbol.type, string_size=scope.string_size)


def symbol_address(expr: ast.SymbolExpr, scope: Scope) -> Value:
    """Check ``&`symbol``: a pointer to the symbol's type, or to void if the type is not known."""
    symbol = _find(expr, scope)
    if symbol.place == "function":
        return _function(symbol)
    t = VOID_POINTER if symbol.type is None else PointerType(symbol.type)
    return Value(_address(symbol), t)


def _find(expr: ast.SymbolExpr, scope: Scope) -> TypedSymbol:
    kernel = scope.types.kernel
    found = kernel.symbol(expr.text)
    if found is None:
        none = isinstance(kernel, NoKernel)
        message = (
            f"{expr.text} is a kernel's, and there is no guest" if none else f"the kernel has no symbol {expr.text}"
        )
        raise refuse("D_IDENT_UNDEF", expr.span, message)
    return found


def _function(symbol: TypedSymbol) -> Value:
    """Return the address of a function: as in C, that is what its name means."""
    t = symbol.type if isinstance(symbol.type, FuncType) else FuncType(INT, (), variadic=True)
    return Value(_address(symbol), PointerType(t), FixedPlace())


def _address(symbol: TypedSymbol) -> TypedExpr:
    addr = typed.Const(MACHINE_POINTER.wrap(symbol.addr), MACHINE_POINTER)
    if symbol.place != "percpu":
        return addr
    return typed.Arith("add", typed.ReadBuiltin(PERCPU_OFFSET, MACHINE_POINTER), addr, MACHINE_POINTER)
