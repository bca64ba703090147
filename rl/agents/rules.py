"""What libraries choose without measuring: fixed rules by the form of a layer, one layout for the
whole network. The rules are read from the libraries' sources and documentation and told in terms of
our kernels, so they stand for the way of choosing, not for the libraries' speed."""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.graph import Node
from rl.agents.base import Found, Problem
from rl.assignment import cost_of, repaired
from rl.space import Action, Space, Stage

# Parts of kernel names by the form of a layer, the first that fits is taken; then any row.
Rules = Mapping[str, tuple[str, ...]]

# ncnn (src/layer/arm/convolution_arm.cpp): Winograd for 3x3 of stride 1 from 16 channels on, packed
# matrix products for 1x1 and, by im2col, for the others; depthwise kernels of their own.
NCNN: Rules = {
    "pointwise": ("neon_gemm_8x8", "neon_gemm"),
    "winograd": ("neon_winograd6", "neon_winograd4_8x8", "neon_winograd"),
    "depthwise": ("neon_depthwise_rows", "neon_depthwise"),
    "other": ("neon_im2col_8x8", "neon_im2col"),
}
# MNN (Jiang et al., MLSys 2020): Strassen for large 1x1, Winograd of a size chosen by a formula.
MNN: Rules = {
    "pointwise": ("neon_strassen", "neon_gemm"),
    "winograd": ("neon_winograd4", "neon_winograd"),
    "depthwise": ("neon_depthwise_rows", "neon_depthwise"),
    "other": ("neon_im2col",),
}
# Uniform plans: one algorithm wherever it applies.
IM2COL: Rules = dict.fromkeys(NCNN, ("neon_im2col", "neon_gemm", "neon"))
WINOGRAD: Rules = {**IM2COL, "winograd": ("neon_winograd",), "strided": ("neon_winograd",)}
PORTABLE: Rules = dict.fromkeys(NCNN, ("f32_c", "_c"))
_SETS = {"ncnn": NCNN, "mnn": MNN, "im2col": IM2COL, "winograd": WINOGRAD, "portable": PORTABLE}
RULES = tuple(_SETS)


@dataclass(frozen=True)
class Library:
    """A plan by rules, in one `layout` wherever rows allow."""

    name: str = "ncnn"
    layout: str = "nhwc"

    def search(self, problem: Problem) -> Found:
        """One plan."""
        walk, rules = problem.walk, _SETS[self.name]
        space = walk.space
        wanted = [_pick(space, s, rules, self.layout) for s in space.stages]
        choices = repaired(walk, wanted)
        value = cost_of(walk, choices)
        return Found(choices, value, (value,))


def form_of(space: Space, node: Node) -> str:
    """How the rules see a layer."""
    if node.op != "Conv" or len(node.attrs["kernel_shape"]) != 2:
        return "other"
    shape = space.graph.tensors[node.inputs[0]].shape
    group, kernel, strides = node.attrs["group"], node.attrs["kernel_shape"], node.attrs["strides"]
    if group == shape[1] > 1:
        return "depthwise"
    if set(kernel) == {1} and set(strides) == {1}:
        return "pointwise"
    if group == 1 and tuple(kernel) == (3, 3) and set(node.attrs["dilations"]) == {1}:
        if set(strides) == {1} and shape[1] >= 16:
            return "winograd"
        return "strided" if set(strides) == {2} else "other"
    return "other"


def _pick(space: Space, stage: Stage, rules: Rules, layout: str) -> int:
    """The row the rules name; where they name none, the fastest by the table: a library has one."""
    alone = [(i, a) for i, a in enumerate(stage.actions) if not (a.group or a.bits)]
    if not alone:
        return -1
    here = [(i, a) for i, a in alone if a.layout == layout] or alone
    form = form_of(space, stage.node)
    for part in rules.get(form, rules["other"]):
        fits = [(i, a) for i, a in here if part in a.kernel]
        if fits and (stage.node.op == "Conv" or rules is PORTABLE):
            return _cheapest(fits)
    return _cheapest(here)


def _cheapest(actions: list[tuple[int, Action]]) -> int:
    return min(actions, key=lambda p: (p[1].price.cost, p[0]))[0]
