"""Binary arithmetic written with the digits ⓪ and ①. Our own generator.

Level N has operands of N + 1 bits, written in full width; results are written as wide as the
operation can need (one bit more for sums, twice as wide for products), truth as ① or ⓪. 15 % of
the problems, by a digest of operation and values, are held out and never occur in a training row
at any level or seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from blake3 import blake3

from evaluation.draw import Draw, share

GENERATOR_ID = "trainctl_binary"
GENERATOR_VERSION = "1.0.0"
HELD_OUT_SHARE = 0.15
MOST_ROWS = 1_000_000
LEVELS = range(1, 31)
ENUMERATED = 1 << 14
"""Operations with at most so many problems are listed; of larger ones problems are drawn."""

ZERO, ONE = "⓪", "①"
_DIGITS = str.maketrans("01", ZERO + ONE)


def digits(value: int, width: int) -> str:
    """A number of 0 or more in ⓪ and ①, at least `width` digits."""
    return format(value, f"0{width}b").translate(_DIGITS)


@dataclass(frozen=True)
class Operation:
    arguments: int
    result: Callable[..., int]
    width: Callable[[int], int] | None = lambda bits: bits
    """Digits of the result for operands of so many bits; None: a decimal number."""
    allowed: Callable[..., bool] = lambda *values: True
    decimal_argument: bool = False


OPERATIONS: dict[str, Operation] = {
    "add": Operation(2, lambda a, b: a + b, lambda bits: bits + 1),
    "subtract": Operation(2, lambda a, b: a - b, allowed=lambda a, b: a >= b),
    "multiply": Operation(2, lambda a, b: a * b, lambda bits: 2 * bits),
    "increment": Operation(1, lambda a: a + 1, lambda bits: bits + 1),
    "decrement": Operation(1, lambda a: a - 1, allowed=lambda a: a >= 1),
    "multiply_by_2": Operation(1, lambda a: 2 * a, lambda bits: bits + 1),
    "divide_by_2": Operation(1, lambda a: a // 2),
    "equals": Operation(2, lambda a, b: int(a == b), lambda bits: 1),
    "lessthan": Operation(2, lambda a, b: int(a < b), lambda bits: 1),
    "greaterthan": Operation(2, lambda a, b: int(a > b), lambda bits: 1),
    "minimum": Operation(2, min),
    "maximum": Operation(2, max),
    "tobinary": Operation(1, lambda a: a, decimal_argument=True),
    "todecimal": Operation(1, lambda a: a, None),
}


def is_held_out(name: str, values: tuple[int, ...]) -> bool:
    """Whether this problem is for evaluation only, however wide its operands are written."""
    return share(f"binary held out 1\n{name}\n{values}") < HELD_OUT_SHARE


def _listed(name: str, bits: int, held_out: bool) -> list[tuple[int, ...]] | None:
    """All problems of an operation, or None where there are too many."""
    operation = OPERATIONS[name]
    if (1 << (bits * operation.arguments)) > ENUMERATED:
        return None
    every = product(range(1 << bits), repeat=operation.arguments)
    return [v for v in every if operation.allowed(*v) and is_held_out(name, v) == held_out]


def _drawn(name: str, bits: int, held_out: bool) -> int:
    """How many problems are drawn, at most, where they are too many to list: a quarter of what
    there is, so that repetitions stay rare."""
    portion = HELD_OUT_SHARE if held_out else 1 - HELD_OUT_SHARE
    return int((1 << (bits * OPERATIONS[name].arguments)) * portion / 4)


def possible(level: int, held_out: bool) -> int:
    """How many different problems a file of this level can have, at most."""
    total = 0
    for name in OPERATIONS:
        listed = _listed(name, level + 1, held_out)
        total += _drawn(name, level + 1, held_out) if listed is None else len(listed)
    return min(MOST_ROWS, total)


class _Source:
    """The problems of one operation in random order, each once."""

    def __init__(self, draw: Draw, name: str, bits: int, held_out: bool) -> None:
        self.name, self.bits, self.held_out, self.draw = name, bits, held_out, draw
        listed = _listed(name, bits, held_out)
        self.listed = None if listed is None else draw.shuffled(listed)
        self.most = _drawn(name, bits, held_out)
        self.seen: set[tuple[int, ...]] = set()

    def next(self) -> tuple[int, ...] | None:
        """The next operands, or None when there are no more."""
        if self.listed is not None:
            return self.listed.pop() if self.listed else None
        operation = OPERATIONS[self.name]
        size = 1 << self.bits
        if len(self.seen) >= self.most:
            return None
        while True:
            values = tuple(self.draw.below(size) for _ in range(operation.arguments))
            # Two random numbers are hardly ever equal; the question would always have one answer.
            if self.name == "equals" and self.draw.chance() < 0.3:
                values = (values[0], values[0])
            if (
                values not in self.seen
                and operation.allowed(*values)
                and is_held_out(self.name, values) == self.held_out
            ):
                self.seen.add(values)
                return values


def problem(name: str, values: tuple[int, ...], bits: int) -> tuple[str, str]:
    """The expression and its result as text, for operands of `bits` bits."""
    operation = OPERATIONS[name]
    shown = [str(v) if operation.decimal_argument else digits(v, bits) for v in values]
    result = operation.result(*values)
    width = operation.width
    return (
        f"{name}({','.join(shown)})",
        str(result) if width is None else digits(result, width(bits)),
    )


def make(level: int, count: int, seed: int, held_out: bool = False) -> Iterator[dict[str, Any]]:
    """`count` rows of `level` (1 to 30), each another problem, the operations in equal shares
    while they last; a function of the arguments alone. The caller sees to it that `count` is
    not above `possible`."""
    draw = Draw("binary", GENERATOR_VERSION, level, seed, int(held_out))
    bits = level + 1
    sources = [_Source(draw, name, bits, held_out) for name in OPERATIONS]
    made = 0
    while made < count and sources:
        source = draw.pick(sources)
        values = source.next()
        if values is None:
            sources.remove(source)
            continue
        made += 1
        expression, result = problem(source.name, values, bits)
        yield {
            "messages": [
                {"role": "user", "content": f"Compute: {expression}"},
                {"role": "assistant", "content": result},
            ],
            "metadata": {
                "sample_id": f"binary-{level}-{blake3(expression.encode()).hexdigest(8)}",
                "skill": "binary",
                "level": level,
                "generator_id": GENERATOR_ID,
                "generator_version": GENERATOR_VERSION,
                "seed": seed,
                "scenario": source.name,
                "bits": bits,
            },
        }
