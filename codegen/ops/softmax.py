"""Softmax and its logarithm along one axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops.base import Attrs, Case, OpDef, Shape, around, axis_of, same_as_first


def _normalise(attrs: dict[str, Any], ins: Sequence[Tensor | None], opset: int) -> dict[str, Any]:
    """Before opset 13 the axis is 1 by default and everything behind it takes part."""
    old = opset < 13
    axis = attrs["axis"] if attrs["axis"] is not None else (1 if old else -1)
    return {"axis": axis_of(axis, len(ins[0].shape)), "flatten": old}


def _expand(log: int):
    def expand(b, node) -> None:
        shape, axis = b.tensors[node.inputs[0]].shape, node.attrs["axis"]
        how = {"axis": axis, "log": log}
        if not node.attrs["flatten"] or around(shape, axis)["inner"] == 1 or not shape:
            b.add("SoftmaxAxis", node.inputs, how, node.name, node.outputs)
            return
        rows = int(np.prod(shape[:axis], dtype=np.int64))
        x = b.add("Reshape", node.inputs, {"shape": (rows, -1)}, f"{node.name}/rows")[0]
        y = b.add("SoftmaxAxis", [x], {**how, "axis": 1}, node.name)[0]
        b.add("Reshape", [y], {"shape": shape}, f"{node.name}/shape", node.outputs)

    return expand


def _reference(at: Attrs, x: np.ndarray) -> np.ndarray:
    axis = at["axis"] if x.ndim else None
    shifted = x - x.max(axis=axis, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=axis, keepdims=True)
    return shifted - np.log(total) if at["log"] else e / total


def _dims(at: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    return dict(around(ins[0] or (1,), at["axis"]), log=at["log"])


_CASES = (
    Case(((1, 10),)),
    Case(((3, 33),), {"axis": -1}),
    Case(((2, 5, 3, 4),), {"axis": 1}),
    Case(((2, 3, 7),)),
)
_AXIS_CASES = tuple(
    Case(c.inputs, {"axis": c.attrs.get("axis", len(c.inputs[0]) - 1) % len(c.inputs[0]), "log": n})
    for n in (0, 1)
    for c in _CASES
)

OPS = (
    OpDef(
        "Softmax",
        same_as_first,
        expand=_expand(0),
        attrs={"axis": None},
        normalise=_normalise,
        cases=_CASES,
    ),
    OpDef(
        "LogSoftmax",
        same_as_first,
        expand=_expand(1),
        attrs={"axis": None},
        normalise=_normalise,
        cases=_CASES,
    ),
    OpDef(
        "SoftmaxAxis",
        same_as_first,
        _reference,
        "softmax",
        _dims,
        attrs={"axis": -1, "log": 0},
        axis_attrs=("axis",),
        cases=(
            *_AXIS_CASES,
            *(
                Case(((2, n, i),), {"axis": 1, "log": log})
                for log in (0, 1)
                for n in (1, 3, 4, 9, 16, 38)
                for i in (1, 3, 5)
            ),
        ),
    ),
)
