"""Winograd's one-dimensional transforms as sums that a template writes down: rows of B' and A',
grouped so that rows which share sums are computed together."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from codegen.winograd import Axis, Points, input_transform

Terms = tuple[tuple[Fraction, str], ...]  # factor and C name; the first factor is 1 if any is


@dataclass(frozen=True)
class Group:
    """Rows of a transform, the sums that they share by name, and the rows as sums."""

    rows: tuple[int, ...]
    shared: tuple[tuple[str, Terms], ...]
    sums: tuple[Terms, ...]


def input_lines(points: Points, infinity: bool) -> list[Group]:
    """B' d. p and -p differ in the sign of the odd terms, if all points come in pairs."""
    b, n = input_transform(points, infinity), len(points)
    if n % 2 == 0:
        rows = range(n + infinity)
        return [_plain(b, tuple(rows[i : i + 2])) for i in range(0, len(rows), 2)]
    ends = (0, n) if infinity else (0,)
    return [_plain(b, ends)] + [_pair(b[i], points[i], i) for i in range(1, n, 2)]


def _plain(table: np.ndarray, rows: tuple[int, ...], name: str = "d") -> Group:
    sums = tuple(_terms((v, f"{name}[{k}]") for k, v in enumerate(table[i])) for i in rows)
    return Group(rows, (), sums)


def _pair(row: np.ndarray, p: Fraction, i: int) -> Group:
    even, odd = (_terms((v, f"d[{k}]") for k, v in enumerate(r) if k % 2 == h)
                 for h, r in enumerate((row, row / p)))  # fmt: skip
    sums = tuple(((Fraction(1), "even"), (s * p, "odd")) for s in (1, -1))
    return Group((i, i + 1), (("even", even), ("odd", odd)), sums)


def output_lines(axis: Axis) -> list[Group]:
    """A' m: even and odd rows, each with the sums or differences of points p and -p. Two rows share
    nothing, but what they read."""
    if axis.f <= 2:
        return [_plain(axis.transforms.a, tuple(range(axis.f)), "m")]
    return [_output(axis, half) for half in range(2)]


def _output(axis: Axis, half: int) -> Group:
    a, points = axis.transforms.a, axis.transforms.points
    inside = {i: f"pair{i}" for i, p in enumerate(points) if p > 0 and -p in points}
    shared = tuple(
        (name, ((Fraction(1), f"m[{i}]"), (Fraction(1 - 2 * half), f"m[{i + 1}]")))
        for i, name in inside.items()
    )
    alone = [k for k in range(axis.e) if k not in inside and k - 1 not in inside]
    rows = tuple(range(half, axis.f, 2))
    sums = tuple(
        _terms((row[k], inside.get(k, f"m[{k}]")) for k in sorted({*alone, *inside}))
        for row in (a[i] for i in rows)
    )
    return Group(rows, shared, sums)


def _terms(terms: Iterable[tuple[Fraction, str]]) -> Terms:
    """Without zeros, a factor of 1 first."""
    left = [(factor, name) for factor, name in terms if factor]
    return tuple(sorted(left, key=lambda t: t[0] != 1))
