"""How much exactness a kernel gives away for speed, and which kernels a careful plan leaves out."""

from functools import cache
from itertools import starmap
from math import inf, prod

from codegen.kernels import Kernel
from codegen.winograd import axis, loss

# Rounding errors, as multiples of those of a direct convolution to first order, that kernels of a
# plan may have by how careful it is. 1: Winograd's F(4x4, 3x3) stays, 2: only F(2x2)
# does.
LIMITS = (inf, 5.0, 2.5)
MOST_CAREFUL = len(LIMITS) - 1
# One level of Strassen's method: at most 3 times the errors of the plain product as
# tests/test_strassen.py measures them, where F(4x4, 3x3) has 2.3 times, and 4.8 here.
_STRASSEN = 6.2


def is_allowed(kernel: Kernel, careful: int) -> bool:
    """May a plan that is so careful use the kernel?"""
    return errors_of(kernel) <= LIMITS[careful]


def errors_of(kernel: Kernel) -> float:
    """Rounding errors of a row as multiples of those of a direct computation: more than 1 where it
    mixes inputs before it multiplies, so that results are sums of larger products that cancel."""
    p, when = kernel.params, kernel.when
    if "products" in p:
        return _STRASSEN
    if "f" not in p:
        return 1.0
    f = (p["f"], when["kh"], when["sh"]), (p.get("fx", p["f"]), when["kw"], when["sw"])
    return prod(starmap(_winograd, f))


@cache
def _winograd(f: int, taps: int, stride: int) -> float:
    """In one dimension; a stride's phases joined or apart, whichever loses more where both occur
    (more than 3 taps are only taken of few channels, which are joined)."""
    return max(loss(axis(f, taps, stride, joined).transforms) for joined in {taps > 3, True})
