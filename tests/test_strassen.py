"""The factors of codegen/strassen.py make the product, and what they cost in accuracy."""

import numpy as np
import pytest

from codegen.strassen import strassen_weights


def _product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The sums that the kernel's comment lists, in the type of x; an even number of rows."""
    p, k, n = (size // 2 for size in (*x.shape, w.shape[1]))
    w11, w21, t1, t2, w22, t3, t4 = strassen_weights(w)
    x11, x12, x21, x22 = x[:p, :k], x[:p, k:], x[p:, :k], x[p:, k:]
    s1 = x21 + x22
    s2 = s1 - x11
    u1 = x11 @ w11
    u2 = u1 + s2 @ t2
    z, m5 = u2 + (x11 - x21) @ t3, s1 @ t1
    out = np.empty((2 * p, 2 * n), x.dtype)
    out[:p, :n] = u1 + x12 @ w21
    out[:p, n:] = u2 + m5 + (x12 - s2) @ w22
    out[p:, :n] = z + x22 @ t4
    out[p:, n:] = z + m5
    return out


@pytest.mark.parametrize("shape", [(2, 2, 2), (6, 8, 24), (98, 64, 40)])
def test_seven_products_make_the_product(shape):
    rows, k, n = shape
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((rows, k)), rng.standard_normal((k, n))
    assert np.allclose(_product(x, w), x @ w, rtol=0, atol=1e-12 * k)


def test_error_is_a_few_times_that_of_the_plain_product():
    """The kernel's comment promises at most 3 times, in the root of the mean square."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((196, 512)).astype(np.float32)
    w = rng.standard_normal((512, 512)).astype(np.float32)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    plain, fast = (np.sqrt(np.mean((y - exact) ** 2)) for y in (_sequential(x, w), _product(x, w)))
    assert fast < 3 * plain


def _sequential(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One sum after the other, as a kernel without Strassen adds them."""
    out = np.zeros((len(x), w.shape[1]), np.float32)
    for k in range(len(w)):
        out += x[:, k : k + 1] * w[k]
    return out
