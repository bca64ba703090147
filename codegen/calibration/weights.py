"""What weights go through on their way to 8 bits: pure functions of numpy arrays.

Weights are as ONNX has them: of a convolution [M, C / groups, kh, kw], of a dense layer [M, K];
the first axis is the output channel.
"""

from dataclasses import dataclass

import numpy as np

_DAMPING = 0.01  # of the mean diagonal of the Hessian, as in GPTQ
_BLOCK = 64  # columns that are rounded before the error goes on to all others
DEAD = 1e-4  # of the largest channel's range
_LEAST_SCALE = np.finfo(np.float32).tiny


def quantise_per_channel(w: np.ndarray, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(int8 values of w's shape, float32 scales [M]): symmetric, w is about values * scale. Values
    lie in [-(2^(bits-1) - 1), 2^(bits-1) - 1]; a channel of zeros has scale 1.
    Without -128, two products of a weight and an int8 fit in 16 bits."""
    largest = np.abs(w.reshape(w.shape[0], -1)).max(1, initial=0.0)
    scales = np.maximum(largest / largest_code(bits), _LEAST_SCALE).astype(np.float32)
    scales = np.where(largest > 0, scales, np.float32(1))
    return _nearest(w / _per_output(scales, w), bits), scales


def largest_code(bits: int) -> int:
    """Of weights of so many bits; the least is its negative."""
    return 2 ** (bits - 1) - 1


def _nearest(q: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.rint(q), -largest_code(bits), largest_code(bits)).astype(np.int8)


def _per_output(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[M] so that it broadcasts over w."""
    return np.asarray(values).reshape(-1, *(1,) * (w.ndim - 1))


def equalise(
    w1: np.ndarray, w2: np.ndarray, groups: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cross-layer equalisation of two convolutions, the second (of `groups`) reading the first's C
    outputs and nobody else doing so: (w1 / s, w2 * s, s [C]), after which channel i has the same
    range in both. The first's bias must be divided by s as well.

    The network computes the same if what is between satisfies f(s x) = s f(x) for s > 0: nothing,
    Relu, LeakyRelu, PRelu, pooling; not Clip with a maximum. Nagel et al. 2019, arXiv:1906.04721,
    equation 11: s = sqrt(r1 r2) / r2, with r the largest magnitudes. A channel that is as good as
    zero in either stays as it is: training leaves such weights, and biases that are not.
    """
    r1, r2 = _output_ranges(w1), _input_ranges(w2, groups)
    used = (r1 > DEAD * r1.max(initial=0.0)) & (r2 > DEAD * r2.max(initial=0.0))
    s = np.sqrt(r1 / np.where(used, r2, 1.0), out=np.ones_like(r1), where=used)
    return w1 / _per_output(s, w1), _scale_inputs(w2, s, groups), s


def _output_ranges(w: np.ndarray) -> np.ndarray:
    return np.abs(w.reshape(w.shape[0], -1)).max(1).astype(np.float64)


def _grouped(w: np.ndarray, groups: int) -> np.ndarray:
    """[groups, M / groups, C / groups, kernel]."""
    return w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)


def _input_ranges(w: np.ndarray, groups: int) -> np.ndarray:
    """[C]."""
    return np.abs(_grouped(w, groups)).max((1, 3)).reshape(-1).astype(np.float64)


def _scale_inputs(w: np.ndarray, s: np.ndarray, groups: int) -> np.ndarray:
    return (_grouped(w, groups) * s.reshape(groups, 1, -1, 1)).reshape(w.shape)


def bias_correction(
    w: np.ndarray, w_quantised: np.ndarray, mean_input: np.ndarray, groups: int = 1
) -> np.ndarray:
    """What to add to the bias [M] so that quantised weights (as real numbers) give the same mean
    output: (w - w_quantised) E[x], with the mean [C] of each input channel. Padding, which reads
    zeros instead, is left out of account. Nagel et al. 2019, arXiv:1906.04721, section 4.2."""
    error = _grouped(w.astype(np.float64) - w_quantised, groups).sum(3)
    means = np.asarray(mean_input, np.float64).reshape(groups, -1)
    return np.einsum("gmc,gc->gm", error, means).reshape(-1)


@dataclass(frozen=True)
class Curvature:
    """How the squared error of outputs grows with that of weights, per group of a convolution:
    `hessian` [groups, K, K] with the K inputs of an output in `order` [groups, K], the largest
    diagonal first, and `passing` [groups, K, K], upper triangular, by which the error of one input
    is passed on to those after it."""

    order: np.ndarray
    hessian: np.ndarray
    passing: np.ndarray


def curvature_of(inputs: np.ndarray) -> Curvature:
    """Of `inputs` [K, N] or [groups, K, N]: N columns of what one output sees. H = X X^T, and the
    Cholesky factor of its inverse, which all rows of weights and widths share (GPTQ)."""
    x = np.asarray(inputs, np.float64)
    x = x.reshape(-1, *x.shape[-2:])
    order = np.argsort(-np.square(x).sum(-1), axis=-1, kind="stable")
    x = np.take_along_axis(x, order[..., None], 1)
    hessian = x @ x.transpose(0, 2, 1)
    damping = _DAMPING * np.trace(hessian, axis1=1, axis2=2) / hessian.shape[1]
    damping = np.where(damping > 0, damping, 1.0)[:, None, None]
    inverse = np.linalg.inv(hessian + damping * np.eye(hessian.shape[1]))
    return Curvature(order, hessian, np.linalg.cholesky(inverse).transpose(0, 2, 1))


def round_weights(
    w: np.ndarray, scale: np.ndarray, curvature: Curvature, bits: int = 8
) -> np.ndarray:
    """Integers of w's shape whose outputs are closer to w's than those of the nearest integers are,
    in the mean square over the inputs that `curvature` is of. `scale` [M] or one.

    GPTQ (Frantar et al. 2022, arXiv:2210.17323), which is optimal brain quantisation
    (arXiv:2208.11580) in one order for all rows: column after column is rounded, and the error is
    passed on to the columns that are left, by the inverse of H = X X^T. Largest diagonal first. A
    row that rounding to nearest serves better (by H) keeps that, so no row gets worse.
    """
    rows = w.reshape(w.shape[0], -1).astype(np.float64)
    rows = rows / np.broadcast_to(np.asarray(scale, np.float64).reshape(-1), w.shape[0])[:, None]
    order = curvature.order[:, None]
    rows = np.take_along_axis(rows.reshape(len(order), -1, rows.shape[1]), order, -1)
    passed_on, nearest = _in_turn(rows, curvature.passing, bits), _nearest(rows, bits)
    hessian = curvature.hessian
    better = _error(passed_on - rows, hessian) < _error(nearest - rows, hessian)
    out = np.empty(rows.shape, np.int8)
    np.put_along_axis(out, order, np.where(better[..., None], passed_on, nearest), -1)
    return out.reshape(w.shape)


def _in_turn(rows: np.ndarray, passing: np.ndarray, bits: int) -> np.ndarray:
    """[groups, M / groups, K], the last dimension one after the other."""
    left, size = rows.copy(), rows.shape[-1]
    out = np.empty(rows.shape, np.int8)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((*rows.shape[:2], end - start))
        for k in range(start, end):
            out[..., k] = _nearest(left[..., k], bits)
            error = (left[..., k] - out[..., k]) / passing[:, k, k, None]
            left[..., k + 1 : end] -= error[..., None] * passing[:, None, k, k + 1 : end]
            errors[..., k - start] = error
        left[..., end:] -= errors @ passing[:, start:end, end:]
    return out


def _error(difference: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Squared output error of each row."""
    return np.einsum("gmk,gmk->gm", difference @ hessian, difference)
