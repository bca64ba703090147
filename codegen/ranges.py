"""Ranges of a kernel's output that can be computed at the same time, each by the same template with
smaller sizes and other addresses. Named in kernel rows (key `split`).

No range changes the order of the sums of one output, nor whether an element is computed in a vector
or alone: results are the same bits however many ranges there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Dims = Mapping[str, Any]

# Elementwise kernels take up to 16 elements at a time; a cache line of floats, too.
_ELEMENTS = 16


@dataclass(frozen=True)
class Part:
    """A range of a step's output. `dims`: the sizes that differ. Where it begins, in elements: in
    each of the step's `args`, in the `residual`, and in y, `pixels` pixels and `elements` elements
    in. Its own scratch begins `scratch` bytes into that of the step."""

    dims: Dims
    args: tuple[int, ...] = ()
    residual: int = 0
    pixels: int = 0
    elements: int = 0
    scratch: int = 0
    scratch_bytes: int = 0


def _chunks(total: int, unit: int, parts: int) -> list[tuple[int, int]]:
    """At most `parts` ranges of equal size, a multiple of `unit`; the last takes what is left. As
    quick as sizes that differ by one, and fewer functions."""
    size = -(-total // (unit * parts)) * unit
    return [(a, min(a + size, total)) for a in range(0, total, size)]


def _window(a: int, b: int, out: int, h: int, k: int, s: int, pad: int) -> tuple[int, int, int]:
    """First row, end, and padding above of the inputs that rows a..b of `out` see through windows
    of k rows. The last range has all that is left, so that nothing at the edge changes."""
    top = a * s - pad
    first = max(top, 0)
    return first, h if b == out else min((b - 1) * s - pad + k, h), first - top


def _images(d: Dims, parts: int) -> list[Part]:
    """Whole images of a batch with the channels last."""
    size, pixels, m = d["h"] * d["w"] * d["c"], d["oh"] * d["ow"], d.get("m", d["c"])
    return [
        Part({"n": b - a}, (a * size,), a * pixels * m, a * pixels)
        for a, b in _chunks(d["n"], 1, parts)
    ]


def _row(d: Dims) -> int:
    """Elements from one row of the image to the next; `plane`: it is in ONNX order."""
    return d["w"] * (1 if d.get("plane") else d["c"])


def rows(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Rows of an image with the channels last, in bands of the kernel's height."""
    return _rows(d, _band(d, p, parts), (d["kh"] - 1) * d["dh"] + 1, parts)


def _band(d: Dims, p: Dims, parts: int) -> int:
    """Rows that a kernel computes together, or fewer where there would be too few bands."""
    return min(p.get("rows", 1), -(-d["oh"] // parts))


def _rows(d: Dims, unit: int, k: int, parts: int) -> list[Part]:
    if d["n"] > 1:
        return _images(d, parts)
    out, m = [], d.get("m", d["c"])
    for a, b in _chunks(d["oh"], unit, parts):
        first, end, pad = _window(a, b, d["oh"], d["h"], k, d["sh"], d["pt"])
        sizes = {"oh": b - a, "h": end - first, "pt": pad}
        at = a * d["ow"]
        out.append(Part(sizes, (first * _row(d),), at * m, at))
    return out if all(part.dims["h"] > 0 for part in out) else []


def _panels(d: Dims, unit: int, parts: int, row: int, at: int) -> list[Part]:
    """Output channels, whose weights lie `row` apart; y moves by `at` per channel."""
    return [
        Part({"m": b - a}, (0, a * row, a, a), a * at, 0, a * at)
        for a, b in _chunks(d["m"], unit, parts)
    ]


def _weighty(d: Dims) -> bool:
    """Are there more weights than activations, so that each part had better read its own? A
    residual is as wide as the whole output, which the templates take for granted."""
    weights = d["m"] * d["c"] * d["kh"] * d["kw"]
    data = d["n"] * (d["h"] * d["w"] * d["c"] + d["oh"] * d["ow"] * d["m"])
    return d["groups"] == 1 and not d["residual"] and weights > data


def pixels(d: Dims, p: Dims, parts: int) -> list[Part]:
    """A pointwise convolution: a range of all its pixels, or of its channels."""
    if _weighty(d):
        return _panels(d, p["nr"], parts, d["c"], 1)
    return _all_pixels(d, p["mr"], parts)


def _all_pixels(d: Dims, unit: int, parts: int) -> list[Part]:
    return [
        Part({"n": 1, "h": 1, "oh": 1, "w": b - a, "ow": b - a}, (a * d["c"],), a * d["m"], a)
        for a, b in _chunks(d["n"] * d["oh"] * d["ow"], unit, parts)
    ]


def sparse_pixels(d: Dims, p: Dims, parts: int) -> list[Part]:
    """A pointwise convolution by the blocks of its weights: a range of all its pixels."""
    return _all_pixels(d, 4, parts)


def sparse_planes(d: Dims, p: Dims, parts: int) -> list[Part]:
    """The same in ONNX order: images, or a range of the pixels of the only one."""
    if d["n"] > 1:
        size, plane = d["c"] * d["plane"], d["m"] * d["plane"]
        return [
            Part({"n": b - a}, (a * size,), a * plane, 0, a * plane)
            for a, b in _chunks(d["n"], 1, parts)
        ]
    return [
        Part({"oh": 1, "ow": b - a}, (a,), a, 0, a)
        for a, b in _chunks(d["oh"] * d["ow"], 4, parts)
    ]


def patches(d: Dims, p: Dims, parts: int) -> list[Part]:
    """A convolution by im2col, channels last: rows, or channels."""
    return _panels(d, p["nr"], parts, d["depth"], 1) if _weighty(d) else rows(d, p, parts)


def tiles(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Winograd: rows of tiles, which read whole strides; or blocks of channels, for which each part
    transforms all inputs."""
    row = d["planes"] * d["depth"]
    blocks = _panels(d, d["width"], parts, row, 1) if _weighty(d) else []
    across = _rows(d, p["f"], -(-d["kh"] // d["sh"]) * d["sh"], parts)
    return blocks if len(blocks) >= len(across) else across


def chain(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Rows of a chain; expanded rows that two ranges need are computed twice."""
    if d["n"] > 1:
        return _images(d, parts)
    out = []
    for a, b in _chunks(d["oh"], _band(d, p, parts), parts):
        e, e_end, pt = _window(a, b, d["oh"], d["eh"], d["kh"], d["sh"], d["pt"])
        h, h_end, ept = _window(e, e_end, d["eh"], d["h"], d["ekh"], d["esh"], d["ept"])
        sizes = {"oh": b - a, "eh": e_end - e, "pt": pt, "h": h_end - h, "ept": ept}
        at = a * d["ow"]
        out.append(Part(sizes, (h * _row(d),), at * d["m"], at))
    return out if all(x.dims["eh"] > 0 and x.dims["h"] > 0 for x in out) else []


def chain_pair(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Rows of two chains; rows before the result that two ranges need are computed twice."""
    if d["n"] > 1:
        return []  # both halves would need a number of images of their own
    first, second = {**d["first"], "plane": d.get("plane", 0)}, d["second"]
    out = []
    for part in chain(second, {**p, "rows": _band(second, p, parts)}, parts):
        top = part.args[0] // (second["w"] * second["c"])
        end = top + part.dims["h"]
        e, e_end, pt = _window(top, end, first["oh"], first["eh"], first["kh"], first["sh"],
                               first["pt"])  # fmt: skip
        h, h_end, ept = _window(e, e_end, first["eh"], first["h"], first["ekh"], first["esh"],
                                first["ept"])  # fmt: skip
        one = {**first, "oh": end - top, "eh": e_end - e, "pt": pt, "h": h_end - h, "ept": ept}
        two = {**second, **part.dims}
        sizes = {"first": one, "second": two, "h": one["h"], "oh": two["oh"]}
        out.append(Part(sizes, (h * _row(first),), part.residual, part.pixels))
    return out if all(x.dims["first"]["eh"] > 0 and x.dims["h"] > 0 for x in out) else []


def channels(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Output channels of a convolution in ONNX order; each part makes its own patches."""
    if d["n"] > 1 or d["groups"] > 1:
        return []
    return _panels(d, p["mr"], parts, d["depth"], d["oh"] * d["ow"])


def planes(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Channels that do not mix, in ONNX order."""
    weights = "m" in d  # which are the same for every image
    if weights and d["n"] > 1:
        return []
    size, row = d["oh"] * d["ow"], d["kh"] * d["kw"]
    return [
        Part({"n": 1, **dict.fromkeys(("c", "m", "groups") if weights else ("c",), b - a)},
             (a * d["h"] * d["w"], a * row, a, a), a * size, 0, a * size)
        for a, b in _chunks(d["n"] * d["c"], 1, parts)
    ]  # fmt: skip


def product(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Rows of a dense layer, or, where there is one, its columns."""
    k, n = d["k"], d["n"]
    if d["m"] > 1:
        return [
            Part({"m": b - a}, (a * k,), a * n, 0, a * n)
            for a, b in _chunks(d["m"], p.get("mr", 1), parts)
        ]
    return [
        Part({"n": b - a}, (0, a * k, a, a), a, 0, a) for a, b in _chunks(n, p["nr"], parts)
    ]


def sparse_product(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Rows of a dense layer by the blocks of its weights, or, where there is one, its columns."""
    if d["m"] > 1:
        return product(d, p, parts)
    return [
        Part({"n": b - a}, (0, 0, 0, a // 4, a, a), a, 0, a)
        for a, b in _chunks(d["n"], 4, parts)
    ]


def elements(d: Dims, p: Dims, parts: int) -> list[Part]:
    """Elements, one like another."""
    return [
        Part({"size": b - a}, (a,), 0, 0, a) for a, b in _chunks(d["size"], _ELEMENTS, parts)
    ]


def outer(d: Dims, p: Dims, parts: int) -> list[Part]:
    """The outermost of outer x n x inner."""
    size = d["n"] * d["inner"]
    return [
        Part({"outer": b - a}, (a * size,), 0, 0, a * size)
        for a, b in _chunks(d["outer"], 1, parts)
    ]


def loops(d: Dims, p: Dims, parts: int) -> list[Part]:
    """The outermost of loops with strides of their own in each operand and in y."""
    first, *rest = d["extents"]
    operands = d["strides"] if "strides" in d else [d["xs"]]
    return [
        Part({"extents": [b - a, *rest]}, tuple(a * s[0] for s in operands), 0, 0, a * d["ys"][0])
        for a, b in _chunks(first, 1 if rest else _ELEMENTS, parts)
    ]


SPLITS: dict[str, Callable[[Dims, Dims, int], list[Part]]] = {
    f.__name__: f
    for f in (
        rows, pixels, patches, tiles, chain, chain_pair, channels, planes, product, elements, outer,
        loops, sparse_pixels, sparse_planes, sparse_product,
    )
}  # fmt: skip
