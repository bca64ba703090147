"""Winograd's transforms against direct convolution: exact in fractions, within stated bounds in
float32; and the sizes of the blocks in which the kernel works."""

from fractions import Fraction

import numpy as np
import pytest

from codegen.winograd import transform_weights, transforms, winograd_blocks

# max |y - reference| / max |reference| in float32, 256 channels of normal values; F(6x6) has points
# 1/2 and 2, whose powers differ by a factor of 1024, and loses most.
BOUNDS = {2: 1e-6, 4: 2e-5, 6: 3e-5}


def _direct(d: np.ndarray, g: np.ndarray, f: int) -> np.ndarray:
    """Valid correlation of d [.., f+2, f+2] with g [.., 3, 3]."""
    return sum(
        d[..., i : i + f, j : j + f] * g[..., i : i + 1, j : j + 1]
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize("f", BOUNDS)
def test_transforms_are_exact(f):
    b, g, a = transforms(f)
    rng = np.random.default_rng(f)
    tile, weights = (
        np.vectorize(Fraction)(rng.integers(-9, 10, (n, n)).astype(object)) for n in (f + 2, 3)
    )
    y = a @ ((g @ weights @ g.T) * (b @ tile @ b.T)) @ a.T
    assert (y == _direct(tile, weights, f)).all()


@pytest.mark.parametrize("f", BOUNDS)
def test_a_bias_at_the_point_one_reaches_every_output(f):
    a = transforms(f)[2]
    position = np.zeros((f + 2, f + 2), object)
    position[1, 1] = Fraction(7)
    assert (a @ position @ a.T == 7).all()


@pytest.mark.parametrize(("f", "bound"), BOUNDS.items())
def test_float32_error_is_bounded(f, bound):
    rng = np.random.default_rng(f)
    d = rng.standard_normal((200, 256, f + 2, f + 2)).astype(np.float32)
    g = rng.standard_normal((256, 3, 3)).astype(np.float32)
    b, _, a = (t.astype(np.float32) for t in transforms(f))
    u = transform_weights(g[None], f)[..., 0].T.reshape(256, f + 2, f + 2)
    z = np.zeros((200, f + 2, f + 2), np.float32)
    for c in range(256):  # one after another, as the kernel sums
        z += u[c] * (b @ d[:, c] @ b.T)
    reference = _direct(d.astype(np.float64), g.astype(np.float64), f).sum(axis=1)
    error = np.abs(a @ z @ a.T - reference).max() / np.abs(reference).max()
    assert error < bound
    assert error > bound / 50  # a bound that says nothing would go unnoticed


def _blocks(**changes):
    dims = dict(n=1, c=64, m=64, oh=56, ow=56) | changes
    return winograd_blocks(dims, dict(f=4, mr=5, nr=16, l2_kib=768))


@pytest.mark.parametrize(
    "dims",
    [
        {},
        dict(c=512, m=512, oh=7, ow=7),
        dict(c=3, m=5, oh=1, ow=1),
        dict(n=3, c=128, m=48, oh=28, ow=29),
    ],
    ids=str,
)
def test_blocks_cover_the_layer(dims):
    s = _blocks(**dims)
    assert s["panels"] * s["blocks"] * 16 >= dims.get("m", 64)
    assert s["block"] == s["tiles"] or s["block"] % s["rows"] == 0
    assert s["groups_in_block"] * s["rows"] >= s["block"]
    assert s["v_plane"] % 32 == 16
    assert s["v_plane"] >= s["rows"] * s["depth"]


def test_large_images_do_not_need_more_scratch():
    assert _blocks(oh=224, ow=224)["scratch_floats"] == _blocks()["scratch_floats"]


@pytest.mark.parametrize(("tiles", "rows"), [(4, 4), (7, 4), (10, 5), (49, 5), (1, 1)])
def test_groups_share_tiles_evenly(tiles, rows):
    assert _blocks(oh=4, ow=4 * tiles)["rows"] == rows
