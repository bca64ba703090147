"""How far two tensors are apart."""

from dataclasses import asdict, dataclass

import numpy as np

# Largest error relative to the output's scale that counts as equal, by element type (architecture:
# "Words").
TOLERANCE = {"f32": 1e-4, "f64": 1e-4, "f16": 2e-2}
# The same for floats that were computed from int8: one code that falls on the other side of a tie
# is a few thousandths of the tensor's scale.
CODED = 2e-2


@dataclass(frozen=True)
class Difference:
    """max |y - ref|, the same / max |ref|, the largest distance in float32 steps (ULP), and the
    cosine."""

    max_abs: float
    max_rel: float
    max_ulp: int
    cosine: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def difference(y: np.ndarray, ref: np.ndarray) -> Difference:
    """Compare a result with its reference, any numeric type, same number of elements."""
    a, b = y.reshape(-1).astype(np.float64), ref.reshape(-1).astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return Difference(0.0, 0.0, 0, 1.0)
    gap = np.where(same, 0.0, np.abs(a - b))
    gap = np.where(np.isnan(gap), np.inf, gap)
    finite = np.abs(b[np.isfinite(b)])
    scale = float(finite.max()) if finite.size else 0.0
    worst = float(gap.max())
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norm if norm > 0 and np.isfinite(norm) else 0.0
    return Difference(worst, worst / scale if scale else np.inf, _ulp(a, b), cosine)


def _ulp(a: np.ndarray, b: np.ndarray) -> int:
    """Distance in representable float32 values, signs included."""

    def ordered(v: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            bits = v.astype(np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    return int(np.abs(ordered(a) - ordered(b)).max())


def passes(d: Difference, dtype: str) -> bool:
    """Is the difference within the tolerance of this element type? Integers and bools must be
    equal."""
    return d.max_rel <= TOLERANCE.get(dtype, 0.0)
