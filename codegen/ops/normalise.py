"""Normalisation: batch, instance, layer, group, RMS, Lp, local response.

Everything with statistics taken at run time is rewritten into reductions and elementwise operators;
batch norm, whose statistics are constants, becomes one multiply-add per channel (`Affine`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import (
    Attrs,
    Case,
    Inferred,
    OpDef,
    Shape,
    Unsupported,
    around,
    axis_of,
    same_as_first,
)


def along(vector: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """A vector shaped so that it broadcasts along one axis of a tensor."""
    return vector.reshape(*(1,) * axis, -1, *(1,) * (rank - axis - 1))


def _vector(b, name: str, tensor: str, rank: int, axis: int) -> str:
    """The same as a node (or as a constant, where `tensor` is one)."""
    shape = (*(1,) * axis, b.tensors[tensor].size, *(1,) * (rank - axis - 1))
    return b.add("Reshape", [tensor], {"shape": shape}, name)[0]


def _like(b, name: str, value: Any, tensor: str) -> str:
    """A constant of the element type of `tensor`."""
    return b.constant(name, np.asarray(value, b.tensors[tensor].dtype.numpy))


# ---- Affine: y = x * scale[c] + shift[c] --------------------------------------------------------


def _axis_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    return {"axis": axis_of(attrs["axis"], len(ins[0].shape))}


def _affine_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    n = ins[0].shape[at["axis"]]
    for t in ins[1:]:
        if t.shape != (n,):
            raise Unsupported(f"scale of shape {t.shape} for {n} channels")
    return same_as_first(at, ins)


def _affine_reference(at: Attrs, x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return x * along(scale, x.ndim, at["axis"]) + along(shift, x.ndim, at["axis"])


def axis_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """Problem size of a kernel that works along one axis."""
    return around(ins[0], at["axis"])


def _scaled(b, node, x: str, scale: str, shift: str, axis: int) -> None:
    """node.outputs[0] = x * scale + shift, vectors along `axis`; `shift` may be absent."""
    out, rank = node.outputs[:1], len(b.tensors[x].shape)
    if not shift:
        b.add("Mul", [x, _vector(b, f"{node.name}/scale", scale, rank, axis)], {}, node.name, out)
    elif scale in b.constants and shift in b.constants:
        b.add("Affine", [x, scale, shift], {"axis": axis}, node.name, out)
    else:
        vectors = [
            _vector(b, f"{node.name}/{n}", t, rank, axis)
            for n, t in (("scale", scale), ("shift", shift))
        ]
        y = b.add("Mul", [x, vectors[0]], {}, f"{node.name}/scaled")[0]
        b.add("Add", [y, vectors[1]], {}, node.name, out)


# ---- batch normalisation ------------------------------------------------------------------------


def _batch_normalise(
    attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int
) -> dict[str, Any]:
    if attrs["training_mode"]:
        raise Unsupported("training_mode is set", "export the model for inference (model.eval())")
    if not attrs["spatial"]:
        raise Unsupported("spatial=0 (statistics per element)")
    if len(ins[0].shape) < 2:
        raise Unsupported(f"batch normalisation of a tensor of rank {len(ins[0].shape)}")
    return {}


def _batch_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if any(t.shape != ins[0].shape[1:2] for t in ins[1:]):
        raise Unsupported(f"statistics {[t.shape for t in ins[1:]]} do not match {ins[0].shape}")
    return same_as_first(at, ins)


def _batch_expand(b, node) -> None:
    """Constant statistics fold in float64 into Affine; others become Sub, Mul, Add."""
    x, *parameters = node.inputs
    if all(t in b.constants for t in parameters):
        gain, bias, mean, var = (b.constants[t].astype(np.float64) for t in parameters)
        scale = gain / np.sqrt(var + node.attrs["epsilon"])
        names = [
            _like(b, f"{node.name}/{n}", v, x)
            for n, v in (("scale", scale), ("shift", bias - mean * scale))
        ]
        b.add("Affine", [x, *names], {"axis": 1}, node.name, node.outputs[:1])
        return
    gain, bias, mean, var = parameters
    rank = len(b.tensors[x].shape)
    centred = b.add(
        "Sub", [x, _vector(b, f"{node.name}/mean", mean, rank, 1)], {}, f"{node.name}/centred"
    )[0]
    r = _inverse_root(b, node, var)
    factor = b.add("Mul", [gain, r], {}, f"{node.name}/factor")[0]
    _scaled(b, node, centred, factor, bias, 1)


def _inverse_root(b, node, var: str, out: str = "") -> str:
    """1 / sqrt(var + epsilon)"""
    eps = _like(b, f"{node.name}/epsilon", node.attrs["epsilon"], var)
    v = b.add("Add", [var, eps], {}, f"{node.name}/stable")[0]
    v = b.add("Sqrt", [v], {}, f"{node.name}/deviation")[0]
    return b.add("Reciprocal", [v], {}, f"{node.name}/inverse", [out] if out else None)[0]


# ---- statistics at run time ---------------------------------------------------------------------


def standardise(b, node, x: str, axes: tuple[int, ...], outs: Sequence[str] = ()) -> str:
    """(x - mean) / sqrt(variance + epsilon) over `axes`; `outs` names the mean and the divisor."""
    mean_name, inverse_name = (*outs, "", "")[:2]
    how = {"axes": axes, "keepdims": 1}
    mean = b.add("ReduceMean", [x], how, f"{node.name}/mean", [mean_name] if mean_name else None)[0]
    d = b.add("Sub", [x, mean], {}, f"{node.name}/centred")[0]
    square = b.add("Mul", [d, d], {}, f"{node.name}/square")[0]
    var = b.add("ReduceMean", [square], how, f"{node.name}/variance")[0]
    r = _inverse_root(b, node, var, inverse_name)
    return b.add("Mul", [d, r], {}, f"{node.name}/standard")[0]


def _instance_expand(b, node) -> None:
    x, scale, shift = node.inputs
    axes = tuple(range(2, len(b.tensors[x].shape)))
    _scaled(b, node, standardise(b, node, x, axes), scale, shift, 1)


def _layer_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    x = ins[0]
    stats = (*x.shape[: at["axis"]], *(1,) * (len(x.shape) - at["axis"]))
    return [(x.shape, x.dtype), (stats, x.dtype), (stats, x.dtype)]


def _layer_expand(b, node) -> None:
    x, scale, shift = (*node.inputs, "")[:3]
    rank, axis = len(b.tensors[x].shape), node.attrs["axis"]
    y = standardise(b, node, x, tuple(range(axis, rank)), node.outputs[1:])
    _gain(b, node, y, scale, shift)


def _gain(b, node, y: str, scale: str, shift: str) -> None:
    """Scale and shift of the shape of the normalised dimensions, or anything that broadcasts."""
    last = (b.tensors[y].shape[-1],)
    if shift and b.tensors[scale].shape == b.tensors[shift].shape == last:
        _scaled(b, node, y, scale, shift, len(b.tensors[y].shape) - 1)
        return
    out = node.outputs[:1]
    y = b.add(
        "Mul", [y, scale], {}, f"{node.name}/scaled" if shift else node.name, None if shift else out
    )[0]
    if shift:
        b.add("Add", [y, shift], {}, node.name, out)


def _rms_expand(b, node) -> None:
    x, scale = node.inputs
    axes = tuple(range(node.attrs["axis"], len(b.tensors[x].shape)))
    square = b.add("Mul", [x, x], {}, f"{node.name}/square")[0]
    mean = b.add("ReduceMean", [square], {"axes": axes, "keepdims": 1}, f"{node.name}/mean")[0]
    y = b.add("Mul", [x, _inverse_root(b, node, mean)], {}, f"{node.name}/standard")[0]
    _gain(b, node, y, scale, "")


def _group_infer(at: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    if len(ins[0].shape) < 2 or ins[0].shape[1] % at["num_groups"]:
        raise Unsupported(f"{ins[0].shape} does not split into {at['num_groups']} groups")
    return same_as_first(at, ins)


def _group_expand(b, node) -> None:
    """Scale and bias are per group before opset 21 and per channel since; their length tells."""
    x, scale, shift = node.inputs
    shape, groups = b.tensors[x].shape, node.attrs["num_groups"]
    y = b.add("Reshape", [x], {"shape": (shape[0], groups, -1)}, f"{node.name}/groups")[0]
    y = standardise(b, node, y, (2,))
    y = b.add("Reshape", [y], {"shape": shape}, f"{node.name}/ungrouped")[0]
    each = shape[1] // groups
    if b.tensors[scale].shape != shape[1:2]:
        scale, shift = (
            _repeat(b, f"{node.name}/{n}", t, each) for n, t in (("scale", scale), ("shift", shift))
        )
    _scaled(b, node, y, scale, shift, 1)


def _repeat(b, name: str, tensor: str, times: int) -> str:
    """Each element of a vector `times` times."""
    n = b.tensors[tensor].size
    column = b.add("Reshape", [tensor], {"shape": (n, 1)}, f"{name}/column")[0]
    wide = b.add("Expand", [column], {"shape": (n, times)}, f"{name}/wide")[0]
    return b.add("Reshape", [wide], {"shape": (n * times,)}, f"{name}/repeated")[0]


def _mean_variance_expand(b, node) -> None:
    """(x - mean) / (sqrt(variance) + 1e-9), the constant of ONNX's function body."""
    x, how = node.inputs[0], {"axes": node.attrs["axes"], "keepdims": 1}
    mean = b.add("ReduceMean", [x], how, f"{node.name}/mean")[0]
    d = b.add("Sub", [x, mean], {}, f"{node.name}/centred")[0]
    square = b.add("Mul", [d, d], {}, f"{node.name}/square")[0]
    var = b.add("ReduceMean", [square], how, f"{node.name}/variance")[0]
    dev = b.add("Sqrt", [var], {}, f"{node.name}/deviation")[0]
    dev = b.add("Add", [dev, _like(b, f"{node.name}/tiny", 1e-9, x)], {}, f"{node.name}/stable")[0]
    b.add("Div", [d, dev], {}, node.name, node.outputs)


def _lp_expand(b, node) -> None:
    """x / norm, and 0 where the norm is 0: every |x| is then 0, so any positive divisor will do."""
    x, p = node.inputs[0], node.attrs["p"]
    if p not in (1, 2):
        raise Unsupported(f"LpNormalization with p={p}; 1 and 2 are defined")
    norm = b.add(
        f"ReduceL{p}", [x], {"axes": (node.attrs["axis"],), "keepdims": 1}, f"{node.name}/norm"
    )[0]
    tiny = _like(b, f"{node.name}/tiny", np.finfo(np.float32).tiny, x)
    norm = b.add("Max", [norm, tiny], {}, f"{node.name}/stable")[0]
    b.add("Div", [x, norm], {}, node.name, node.outputs)


# ---- local response normalisation ---------------------------------------------------------------


def _lrn_reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    axis, size = at["axis"], at["size"]
    before, n = (size - 1) // 2, x.shape[axis]
    square = np.moveaxis(x * x, axis, 0)
    padded = np.pad(square, ((before, size - 1 - before), *((0, 0),) * (x.ndim - 1)))
    total = np.moveaxis(sum(padded[i : i + n] for i in range(size)), 0, axis)
    return x / (at["bias"] + at["alpha"] / size * total) ** at["beta"]


def _lrn_dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    before = (at["size"] - 1) // 2
    return dict(
        around(ins[0], at["axis"]),
        before=before,
        after=at["size"] - 1 - before,
        scale=at["alpha"] / at["size"],
        beta=at["beta"],
        bias=at["bias"],
    )


_EPSILON = {"epsilon": 1e-5}
_C = (
    np.array([0.5, -1.0, 2.0], np.float32),
    np.array([0.25, 0.5, -1.0], np.float32),
    np.array([-0.5, 0.125, 1.0], np.float32),
    np.array([0.5, 1.0, 3.0], np.float32),
)

OPS = (
    OpDef(
        "Affine",
        _affine_infer,
        _affine_reference,
        "affine",
        axis_dims,
        attrs={"axis": 1},
        normalise=_axis_normalise,
        axis_attrs=("axis",),
        fuses=("activation",),
        cases=(
            Case(((1, 5, 4, 3), (5,), (5,)), {}, (1, 2)),
            Case(((2, 17, 7, 7), (17,), (17,)), {}, (1, 2)),
            Case(((3, 9), (9,), (9,)), {}, (1, 2)),
            Case(((2, 4, 33), (33,), (33,)), {"axis": 2}, (1, 2)),
            *(
                Case(((2, n, i), (n,), (n,)), {}, (1, 2))
                for n in (1, 3, 4, 9)
                for i in (1, 3, 4, 5)
            ),
        ),
    ),
    OpDef(
        "BatchNormalization",
        _batch_infer,
        expand=_batch_expand,
        normalise=_batch_normalise,
        attrs={**_EPSILON, "training_mode": 0, "spatial": 1},
        ignored=("momentum",),
        cases=(
            Case(((1, 3, 4, 5), *_C), {}, (1, 2, 3, 4)),
            Case(((2, 3, 5), *_C), {"epsilon": 1e-2}, (1, 2, 3, 4)),
            Case(((2, 3), *_C), {}, (3, 4)),
        ),
    ),
    OpDef(
        "InstanceNormalization",
        same_as_first,
        expand=_instance_expand,
        attrs=_EPSILON,
        cases=(Case(((2, 3, 4, 5), (3,), (3,)), {}, (1, 2)), Case(((1, 3, 7), (3,), (3,)))),
    ),
    OpDef(
        "LayerNormalization",
        _layer_infer,
        expand=_layer_expand,
        normalise=_axis_normalise,
        attrs={**_EPSILON, "axis": -1},
        ignored=("stash_type",),
        cases=(
            Case(((2, 5, 8), (8,), (8,)), {}, (1, 2)),
            Case(((2, 5, 8), (8,)), {}, (1,)),
            Case(((2, 5, 8), (5, 8), (5, 8)), {"axis": 1}, (1, 2)),
            Case(((3, 6), (6,), (6,))),
        ),
    ),
    OpDef(
        "RMSNormalization",
        same_as_first,
        expand=_rms_expand,
        normalise=_axis_normalise,
        attrs={**_EPSILON, "axis": -1},
        ignored=("stash_type",),
        cases=(Case(((2, 5, 8), (8,)), {}, (1,)), Case(((2, 5, 8), (5, 8)), {"axis": -2})),
    ),
    OpDef(
        "GroupNormalization",
        _group_infer,
        expand=_group_expand,
        attrs={**_EPSILON, "num_groups": 1},
        ignored=("stash_type",),
        cases=(
            Case(((2, 6, 3, 4), (6,), (6,)), {"num_groups": 3}, (1, 2)),
            Case(((1, 4, 5), (4,), (4,)), {"num_groups": 4}),
        ),
    ),
    OpDef(
        "MeanVarianceNormalization",
        same_as_first,
        expand=_mean_variance_expand,
        attrs={"axes": (0, 2, 3)},
        cases=(Case(((2, 3, 4, 5),)), Case(((2, 3, 4),), {"axes": (1, 2)})),
    ),
    OpDef(
        "LpNormalization",
        same_as_first,
        expand=_lp_expand,
        attrs={"axis": -1, "p": 2},
        cases=(Case(((3, 4),)), Case(((2, 3, 4),), {"axis": 1, "p": 1})),
    ),
    OpDef(
        "LRN",
        same_as_first,
        _lrn_reference,
        "lrn",
        _lrn_dims,
        attrs={"axis": 1, "alpha": 1e-4, "beta": 0.75, "bias": 1.0, "size": 1},
        axis_attrs=("axis",),
        cases=(
            Case(((1, 7, 3, 4),), {"size": 5, "alpha": 0.5}),
            Case(((2, 6, 2, 2),), {"size": 3, "bias": 2.0, "beta": 0.5}),
            Case(((1, 3, 2, 2),), {"size": 7}),
        ),
    ),
)
