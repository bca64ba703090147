"""Equalisation, bias correction and rounding, against what they promise about outputs."""

import numpy as np
import pytest

from codegen.calibration.weights import (
    bias_correction,
    curvature_of,
    equalise,
    quantise_per_channel,
    round_weights,
)
from codegen.ops import OPS


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def conv(x, w, b, group=1, pad=0):
    attrs = {**OPS["Conv"].attrs, "group": group, "pads": (pad,) * 4, "strides": (1, 1),
             "dilations": (1, 1), "kernel_shape": w.shape[2:]}  # fmt: skip
    return OPS["Conv"].reference(attrs, x, w, b)


def relu(x):
    return np.maximum(x, 0)


def wild(rng, *shape):
    """Weights whose output channels differ in range by up to 10^4."""
    w = rng.standard_normal(shape)
    return w * 10 ** rng.uniform(-2, 2, (shape[0], *(1,) * (len(shape) - 1)))


def largest(w, axes):
    return np.abs(w).max(axes)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_weights_are_symmetric_and_near(bits, rng):
    w = wild(rng, 6, 3, 3, 3).astype(np.float32)
    w[2] = 0
    values, scales = quantise_per_channel(w, bits)
    top = 2 ** (bits - 1) - 1
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    assert values.min() >= -top
    assert values.max() <= top
    assert scales[2] == 1
    assert not values[2].any()
    others = [i for i in range(6) if i != 2]
    assert (largest(values[others].astype(int), (1, 2, 3)) == top).all()
    error = np.abs(values * scales[:, None, None, None] - w)
    assert (error <= scales[:, None, None, None] * 0.5001).all()


def test_the_least_weights_have_a_scale():
    values, scales = quantise_per_channel(np.array([[1e-44, -2e-44]], np.float32))
    assert scales[0] > 0
    assert np.isfinite(values * scales).all()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_equalised_pairs_compute_the_same(groups, rng):
    w1, b1 = wild(rng, 6, 3, 1, 1), rng.standard_normal(6)
    w2, b2 = rng.standard_normal((12, 6 // groups, 3, 3)), rng.standard_normal(12)
    x = rng.standard_normal((2, 3, 7, 7))
    e1, e2, s = equalise(w1, w2, groups)
    before = conv(relu(conv(x, w1, b1)), w2, b2, groups, 1)
    after = conv(relu(conv(x, e1, b1 / s)), e2, b2, groups, 1)
    np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-10)
    inputs = e2.reshape(groups, 12 // groups, 6 // groups, 9).transpose(0, 2, 1, 3).reshape(6, -1)
    np.testing.assert_allclose(largest(e1, (1, 2, 3)), largest(inputs, 1))


def test_dead_channels_stay_as_they_are(rng):
    w1, w2 = wild(rng, 4, 3, 1, 1), rng.standard_normal((2, 4, 1, 1))
    w1[1], w2[:, 2] = 0, 1e-30
    e1, e2, s = equalise(w1, w2)
    assert s[1] == s[2] == 1
    assert np.isfinite(e1).all()
    assert np.isfinite(e2).all()


def test_equalisation_halves_the_error_of_one_scale_per_tensor(rng):
    w1, w2 = wild(rng, 16, 8, 1, 1), rng.standard_normal((8, 16, 1, 1))
    x = rng.standard_normal((1, 8, 8, 8))

    def quantised(w):
        values, scales = quantise_per_channel(w.reshape(1, -1))
        return (values * scales[0]).reshape(w.shape)

    def block(w1, w2):
        return conv(relu(conv(x, w1, None)), w2, None)

    true = block(w1, w2)
    plain = np.square(block(quantised(w1), quantised(w2)) - true).mean()
    e1, e2, _ = equalise(w1, w2)
    equal = np.square(block(quantised(e1), quantised(e2)) - true).mean()
    assert equal < plain / 2


@pytest.mark.parametrize("groups", [1, 4])
def test_corrected_bias_restores_the_mean(groups, rng):
    w = rng.standard_normal((4, 4 // groups, 3, 3))
    values, scales = quantise_per_channel(w, 3)
    wq = values * scales[:, None, None, None].astype(np.float64)
    x = np.broadcast_to(rng.standard_normal((2, 4, 1, 1)), (2, 4, 5, 5))  # every window sees means
    mean = x.mean((0, 2, 3))
    correction = bias_correction(w, wq, mean, groups)
    true, plain = conv(x, w, None, groups), conv(x, wq, None, groups)
    assert np.abs((plain - true).mean((0, 2, 3))).max() > 0.01
    corrected = conv(x, wq, correction, groups)
    np.testing.assert_allclose(corrected.mean((0, 2, 3)), true.mean((0, 2, 3)), atol=1e-12)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_rounding_with_the_error_passed_on_beats_the_nearest(bits, rng):
    mix = rng.standard_normal((36, 36)) / 6 + 0.5  # as neighbours in a picture, they go together
    train, test = (relu(mix @ rng.standard_normal((36, n))) for n in (400, 400))
    w = rng.standard_normal((10, 4, 3, 3)).astype(np.float32)
    nearest, scales = quantise_per_channel(w, bits)
    rounded = round_weights(w, scales, curvature_of(train), bits)
    top = 2 ** (bits - 1) - 1
    assert rounded.shape == w.shape
    assert rounded.dtype == np.int8
    assert np.abs(rounded.astype(int)).max() <= top

    def error(values, x):
        return np.square((values * scales[:, None, None, None] - w).reshape(10, -1) @ x).mean(1)

    assert (error(rounded, train) <= error(nearest, train) * (1 + 1e-9)).all()
    assert error(rounded, test).mean() < 0.7 * error(nearest, test).mean()


def test_groups_round_each_by_itself(rng):
    w, x = rng.standard_normal((6, 2, 3, 3)).astype(np.float32), rng.random((3, 18, 50))
    _, scales = quantise_per_channel(w, 4)
    parts = [round_weights(w[i : i + 2], scales[i : i + 2], curvature_of(x[i // 2]), 4)
             for i in (0, 2, 4)]  # fmt: skip
    assert np.array_equal(round_weights(w, scales, curvature_of(x), 4), np.concatenate(parts))


def test_rounding_without_information_is_to_the_nearest(rng):
    w = rng.standard_normal((3, 8)).astype(np.float32)
    nearest, scales = quantise_per_channel(w)
    assert np.array_equal(round_weights(w, scales, curvature_of(np.zeros((8, 5)))), nearest)
    assert np.array_equal(round_weights(w, scales, curvature_of(np.eye(8))), nearest)


def test_blocks_of_columns_round_as_one_column_at_a_time(monkeypatch, rng):
    w, x = rng.standard_normal((5, 100)).astype(np.float32), rng.random((100, 300))
    _, scales = quantise_per_channel(w, 4)
    blocked = round_weights(w, scales, curvature_of(x), 4)
    monkeypatch.setattr("codegen.calibration.weights._BLOCK", 1)
    assert np.array_equal(round_weights(w, scales, curvature_of(x), 4), blocked)
