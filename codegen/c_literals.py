"""Numbers as C text."""

from collections.abc import Iterable

import numpy as np

from codegen.types import DType


def c_float(value: float) -> str:
    """Shortest decimal literal that reads back as the same float32."""
    v = np.float32(value)
    if np.isinf(v):
        return "-INFINITY" if v < 0 else "INFINITY"
    if np.isnan(v):
        return "NAN"
    text = (
        np.format_float_scientific(v, trim="-")
        if v and not 1e-4 <= abs(v) < 1e7
        else np.format_float_positional(v, trim="-")
    )
    return (text if any(c in text for c in ".e") else f"{text}.0") + "f"


def c_args(args: Iterable[float]) -> str:
    """Further arguments of a call, each behind a comma."""
    return "".join(f", {c_float(a)}" for a in args)


def c_bound(value: float, c_type: str) -> str:
    """A clip bound as a literal of an integer type, saturated to its range."""
    info = np.iinfo(np.dtype(c_type.removesuffix("_t")))
    number = min(max(int(np.clip(value, -(2.0**63), 2.0**63)), info.min), info.max)
    return (
        f"(-{-(number + 1)}LL - 1)"
        if number == -(1 << 63)
        else f"{number}{'LL' if info.bits == 64 else ''}"
    )


def literals(array: np.ndarray, dtype: DType) -> list[str]:
    """Lines of an initialiser, eight values each; never none."""
    flat = array.reshape(-1)
    if dtype == DType.F32:
        words = [c_float(v) for v in flat]
    elif dtype == DType.F16:
        words = [f"(cg_f16){c_float(v)}" for v in flat]
    elif dtype == DType.F64:
        words = [repr(float(v)) for v in flat]
    elif dtype == DType.I64:
        words = [f"INT64_C({int(v)})" if v > -(1 << 63) else "INT64_MIN" for v in flat]
    else:
        words = [str(int(v)) for v in flat]
    words = words or ["0"]
    return [", ".join(words[i : i + 8]) for i in range(0, len(words), 8)]
