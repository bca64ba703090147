"""Two chains of convolutions (codegen/ops/chain.py), one behind the other, that one kernel computes
band by band: the tensor between them, too, exists in bands of a few rows only.

No ONNX operator: codegen/groups.py makes such a node where a plan says so. What a pair gains is
memory, where the tensor between the chains is larger than what goes in and what comes out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.ops import chain
from codegen.ops.base import Attrs, Case, Inferred, OpDef, Shape

WIDTH = 6  # inputs of a chain after the image: weights and bias of three stages
# The attributes of both, and the activation of the first one's result; the second one's is the
# node's own.
_ATTRS = {
    **{f"{which}_{k}": v for which in ("first", "second") for k, v in chain.ATTRS.items()},
    "last_act": (),
}  # fmt: skip


def attrs_of(attrs: Attrs, which: str) -> dict[str, Any]:
    """The attributes of the `first` or `second` as those of a chain."""
    return {k: attrs[f"{which}_{k}"] for k in chain.ATTRS}


def _halves(inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    return inputs[1 : 1 + WIDTH], inputs[1 + WIDTH :]


def _infer(attrs: Attrs, ins: Sequence[Tensor | None]) -> Inferred:
    first, second = _halves(ins)
    shape, dtype = chain.infer(attrs_of(attrs, "first"), [ins[0], *first])[0]
    return chain.infer(attrs_of(attrs, "second"), [Tensor("", shape, dtype), *second])


def _reference(attrs: Attrs, x: np.ndarray, *constants: np.ndarray | None) -> np.ndarray:
    first, second = _halves((x, *constants))
    between = chain.reference(attrs_of(attrs, "first"), x, *first)
    between = chain.activate(attrs["last_act"], between)
    return chain.reference(attrs_of(attrs, "second"), between, *second)


def _dims(attrs: Attrs, ins: Sequence[Shape], outs: Sequence[Shape]) -> dict[str, Any]:
    """`first` and `second`: the sizes of the chains, with the activation of the first; and what
    constraints name: c channels, `expand` as in a chain, e and e2 expanded ones, m of the result.
    Inputs that are absent are left out of `ins`."""
    chains, x = [], ins[0]
    constants = list(ins[1:])
    for which in ("first", "second"):
        at = attrs_of(attrs, which)
        count = 2 * (1 + bool(at["expand_kernel"]) + at["project"])
        weights, constants = constants[:count], constants[count:]
        y = chain.shape_after(at, x, weights)
        chains.append(chain.dims(at, [x, *weights], [y]))
        x = y
    first, second = chains
    first |= {"act": chain.activation(attrs["last_act"]), "residual": 0}
    sizes = {k: first[k] for k in ("n", "c", "h", "w", "e", "expand")}
    sizes |= {k: second[k] for k in ("m", "oh", "ow")}
    return {**sizes, "e2": second["e"], "first": first, "second": second}


def _macs(d: Mapping[str, Any]) -> int:
    return chain.macs(d["first"]) + chain.macs(d["second"])


def _case(first: Case, second: Case, act: tuple = ()) -> Case:
    """The second chain's image is the first one's result."""
    at = {f"first_{k}": v for k, v in first.attrs.items()}
    at |= {f"second_{k}": v for k, v in second.attrs.items()}
    shapes = (*first.inputs, *second.inputs[1:])
    return Case(shapes, {**_ATTRS, **at, "last_act": act}, tuple(range(1, len(shapes))))


_IMAGE = dict(expand_kernel=(3, 3), expand_strides=(2, 2), expand_pads=(1, 1, 1, 1))
_CASES = (
    _case(chain.case(3, 8, 16, 37, 42, 3, 1, **_IMAGE), chain.case(16, 24, 12, 19, 21, 3, 2)),
    _case(chain.case(3, 8, 6, 40, 20, 3, 1, **_IMAGE), chain.case(6, 16, 9, 20, 10, 3, 1)),
    _case(chain.case(2, 16, 8, 11, 35, 5, 2), chain.case(8, 8, 0, 6, 18, 5, 2), ("HardSwish",)),
    _case(chain.case(0, 8, 16, 13, 9, 3, 1), chain.case(0, 16, 11, 13, 9, 3, 2), ("Relu",)),
    _case(chain.case(4, 24, 8, 4, 6, 3, 1), chain.case(0, 8, 0, 4, 6, 3, 2)),
)

OPS = (
    OpDef(
        "ConvChainPair", _infer, _reference, "conv_chain_pair", _dims, attrs=_ATTRS, spatial=True,
        fuses=("activation", "residual"), macs=_macs, cases=_CASES,
    ),
)  # fmt: skip
