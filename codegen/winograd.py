"""Winograd's fast convolution F(f, r): f outputs of r taps from f + r - 1 products, in exact
fractions, and the weights in transformed form.

    y = A' [(G g G') * (B' d B)] A,   d a tile of inputs, y one of f x f outputs

The transforms evaluate polynomials at points and, if so wanted, at infinity. A. Lavin, S. Gray,
Fast Algorithms for Convolutional Neural Networks, 2015 (arXiv:1509.09308); A. Toom, S. Cook, 1966.
The points decide how many digits are lost (`loss`). Zero is free, p and -p share sums, and of small
fractions in such pairs 2/3 and 3/2 with infinity lose least, or of three pairs 1, 2 and 1/2
(tests/test_winograd.py looks through them).

A stride s takes the inputs apart into s phases per dimension, each a convolution of stride 1 with
every s-th tap; their products are summed before A'. A phase that has one tap less than the others
is zero at infinity.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Points = tuple[Fraction, ...]


def _points(text: str) -> Points:
    return tuple(map(Fraction, text.split()))


# By the number of finite points and whether infinity is one too.
POINTS = {
    (2, True): _points("0 1"),
    (3, False): _points("0 1 -1"),
    (3, True): _points("0 1 -1"),
    (4, True): _points("0 3/4 -3/4 2"),
    (5, False): _points("0 4/5 -4/5 5/2 -5/2"),
    (5, True): _points("0 2/3 -2/3 3/2 -3/2"),
    (6, True): _points("0 1 -1 2 -2 1/2"),
    (7, False): _points("0 4/7 -4/7 7/6 -7/6 7/2 -7/2"),
    (7, True): _points("0 1 -1 2 -2 1/2 -1/2"),
}


@dataclass(frozen=True)
class Transforms:
    """B' [e][e], G [e][r] and A' [f][e] as exact fractions, e = f + r - 1; `points` are the finite
    ones, infinity is last. Each row of A' has a factor of 1, where that can be had."""

    points: Points
    b: np.ndarray
    g: np.ndarray
    a: np.ndarray

    @property
    def has_one(self) -> bool:
        """Is the second point 1? Then the second column of A' is all ones."""
        return self.points[1] == 1


@dataclass(frozen=True)
class Axis:
    """One dimension of a convolution: f outputs per tile of e inputs, `taps` of each phase."""

    f: int
    stride: int
    taps: tuple[int, ...]
    e: int
    transforms: Transforms

    @property
    def infinity(self) -> bool:
        return len(self.transforms.points) < self.e

    def positions(self, phase: int) -> int:
        """At how many positions does a phase have products, and from how many inputs? All, or all
        but infinity and the last."""
        return self.e - (self.taps[phase] < self.taps[0])


def transforms(f: int, r: int, infinity: bool) -> Transforms:
    """F(f, r) with or without the point infinity; f + r - 1 is at most 8, without it 7."""
    return transforms_at(POINTS[f + r - 1 - infinity, infinity], f, r, infinity)


def transforms_at(points: Points, f: int, r: int, infinity: bool) -> Transforms:
    """The same at other points."""
    e = f + r - 1
    g, a = np.full((e, r), Fraction(0)), np.full((f, e), Fraction(0))
    for i, p in enumerate(points):
        scale = 1 / abs(p) ** ((i + 1) // 2) if p else 1  # A' is 1 in another row for each pair
        a[:, i] = [scale * p**k for k in range(f)]
        g[i] = [p**k / (scale * _product(p - q for q in points if q != p)) for k in range(r)]
    if infinity:
        g[-1, -1], a[-1, -1] = Fraction(1), Fraction(1)
    return Transforms(points, input_transform(points, infinity), g, a)


def loss(t: Transforms) -> float:
    """How much larger rounding errors are than those of direct convolution in one dimension, to
    first order: products of independent normal values are rounded at each position, and A' adds up
    the errors. B. Barabasz et al., Error Analysis and Improving the Accuracy of Winograd
    Convolution for Deep Neural Networks, 2020 (arXiv:1803.10986), of whose bounds this is the
    mean-square form."""
    b, g, a = (m.astype(np.float64) ** 2 for m in (t.b, t.g, t.a))
    return float(np.sqrt((a @ (b.sum(axis=1) * g.sum(axis=1))).mean() / t.g.shape[1]))


def input_transform(points: Points, infinity: bool) -> np.ndarray:
    """B' [e][e]. Without its last row and column it is B' of the finite points."""
    b = np.full((len(points) + infinity,) * 2, Fraction(0))
    for i in range(len(points)):
        b[i, : len(points)] = _polynomial(points[:i] + points[i + 1 :])
    if infinity:
        b[-1] = _polynomial(points)
    return b


def _polynomial(roots: tuple[Fraction, ...]) -> list[Fraction]:
    """Coefficients of the product of (x - root), lowest first."""
    out = [Fraction(1)]
    for root in roots:
        out = [a - root * b for a, b in zip([Fraction(0), *out], [*out, Fraction(0)], strict=True)]
    return out


def _product(factors: Any) -> Fraction:
    out = Fraction(1)
    for factor in factors:
        out *= factor
    return out


def axis(f: int, kernel: int, stride: int, joined: bool) -> Axis:
    """`joined`: the phases are channels of one convolution. Otherwise infinity spares them
    products; an odd number of points is symmetric without it."""
    taps = tuple(-(-(kernel - phase) // stride) for phase in range(stride))
    e = f + taps[0] - 1
    spares = not joined and taps[-1] < taps[0]
    return Axis(f, stride, taps, e, transforms(f, taps[0], spares or e % 2 == 0))


def transform_weights(w: np.ndarray, y: Axis, x: Axis, joined: bool) -> list[list[np.ndarray]]:
    """OIHW [m][c][kh][kw] -> for every position its parts [c][m], one per phase that has products
    there: G g G' in float64, rounded once. Joined phases are one part [phases * c][m]."""
    g = {
        (i, j): _phase_weights(w[:, :, i :: y.stride, j :: x.stride], y.transforms, x.transforms)
        for i in range(y.stride)
        for j in range(x.stride)
    }
    at = [(p, q) for p in range(y.e) for q in range(x.e)]
    if joined:
        return [[np.concatenate([u[p, q] for u in g.values()])] for p, q in at]
    return [
        [u[p, q] for (i, j), u in g.items() if p < y.positions(i) and q < x.positions(j)]
        for p, q in at
    ]


def _phase_weights(w: np.ndarray, y: Transforms, x: Transforms) -> np.ndarray:
    """[m][c][..][..] -> [positions][positions][c][m]; missing taps are zero."""
    gy, gx = (t.g.astype(np.float64)[:, :n] for t, n in zip((y, x), w.shape[2:], strict=True))
    return np.einsum("ai,mcij,bj->abcm", gy, w.astype(np.float64), gx, optimize=True).astype(
        np.float32
    )
