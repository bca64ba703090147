"""For every kernel row, the layers to try it on: the operator's own cases, and sizes that
bracket the row's tile."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from codegen.board import ISAS, Board, load_board
from codegen.builder import Builder
from codegen.graph import Activation, Graph, Node, Tensor
from codegen.kernels import Kernel, refusal
from codegen.layer import layer_of
from codegen.ops import OPS, quantised
from codegen.ops.base import Case
from codegen.passes.sparse import mark_sparse
from codegen.plan import Choice
from codegen.types import DType

ACTIVATIONS = (
    None,
    Activation("Relu"),
    Activation("Clip", (0.0, 6.0)),
    Activation("HardSwish"),
    Activation("Sigmoid"),
    Activation("Silu"),
    Activation("LeakyRelu", (0.1,)),
    Activation("HardSigmoid", (0.2, 0.5)),
    Activation("Tanh"),
    Activation("Elu", (1.0,)),
    Activation("PRelu2", (), "slope"),
)

FLOATS = (DType.F32, DType.F16)
# Instructions that nothing stands in for on this machine: code for them runs on an emulator.
EMULATED = ("fp16", "dotprod", "i8mm")
# Applied to sums of many products, they show a rounding that is small beside the largest sum.
STEEP = ("Clip", "Tanh", "Sigmoid", "HardSigmoid", "Silu", "Elu")


@dataclass(frozen=True)
class Trial:
    """One node to compute with one kernel row."""

    op: str
    case: Case
    layout: str
    activation: Activation | None = None
    residual: bool = False
    dtype: DType = DType.F32


def emulated_board(isa: str) -> Board:
    """A board whose core has `isa`. No board that we know has i8mm: there it is the emulator's core
    with everything."""
    board = load_board("raspberry-pi-5")
    if isa in board.isa:
        return board
    flags = ("-mcpu=cortex-a76+i8mm", *board.cflags[1:])
    return replace(board, isa=(*board.isa, isa), cflags=flags, qemu_cpu="max", runners=("qemu",))


def bracket(n: int) -> list[int]:
    """Sizes around a tile of n."""
    return sorted({v for v in (1, n - 1, n, n + 1, 2 * n + 1) if v > 0})


def _conv(channels: int, out: int, h: int, w: int, **attrs: Any) -> Case:
    k = attrs.pop("kernel", (1, 1))
    return Case(
        ((1, channels, h, w), (out, channels // attrs.get("group", 1), *k), (out,)), attrs, (1, 2)
    )


def sparse_weights(k: int, n: int, zeros: float) -> np.ndarray:
    """[k][n], with so large a share of blocks of 4 columns x 1 row that are all zeros, and other
    zeros in the rest; one column of blocks is empty, and one as full as the share allows."""
    rng = np.random.default_rng([k, n])
    high = -(-n // 4)
    full = np.zeros((high, k), bool)
    order = rng.permutation(high * k)
    order = np.concatenate([order[order % high == 0], order[order % high > 1]])
    full.T.reshape(-1)[order[: int((1 - zeros) * high * k)]] = True
    w = rng.standard_normal((k, n)).astype(np.float32) * np.repeat(full, 4, axis=0)[:n].T
    w[rng.random((k, n)) < 0.2] = 0
    return w


def _sparse_conv(c: int, m: int, h: int, w: int, zeros: float = 0.8, n: int = 1) -> Case:
    weights = np.ascontiguousarray(sparse_weights(c, m, zeros).T).reshape(m, c, 1, 1)
    return Case(((n, c, h, w), weights, (m,)), {}, (1, 2))


def _sparse_conv_trials(row: Kernel) -> Iterator[Case]:
    """Pixels around a tile and its vectors, channels around a block, inputs around 4 and in parts,
    images, no block at all."""
    mr = row.params["mr"]
    for i, pixels in enumerate(sorted({*bracket(mr), *bracket(4), 3 * mr + 1, 4 * mr})):
        yield _sparse_conv((5, 32, 39, 64)[i % 4], (4, 11, 1, 8, 17)[i % 5], 1, pixels)
    yield _sparse_conv(64, 30, 7, 7, 0.7)
    yield _sparse_conv(7, 9, 3, 6, 1.0)
    yield _sparse_conv(20, 12, 4, 9, 0.75, 3)
    yield _sparse_conv(680, 13, 5, 7, 0.9)
    yield _sparse_conv(642, 40, 7, 9, 0.8, 2)


def _sparse_dense_trials(row: Kernel) -> Iterator[Case]:
    """Rows around a tile, columns around a block; no block at all."""
    for m in bracket(row.params["mr"]):
        for k, n in ((37, 3), (64, 4), (50, 13), (96, 64)):
            yield Case(((m, k), sparse_weights(k, n, 0.75), (n,)), {}, (1, 2))
    yield Case(((2, 9), np.zeros((9, 6), np.float32), (6,)), {}, (1, 2))
    yield Case(((1, 300), sparse_weights(300, 35, 0.9)), {}, (1,))


def _conv_trials(row: Kernel) -> Iterator[Case]:
    if row.when.get("sparse"):
        yield from _sparse_conv_trials(row)
        return
    if row.isa == "fp16":
        half = _half_winograd_trials if "f" in row.params else _half_conv_trials
        yield from half(row)
        return
    mr, nr = row.params.get("mr", 4), row.params.get("nr", 8)
    for i, m in enumerate(bracket(nr) + bracket(mr)):
        yield _conv(1 + 3 * i, m, 3, 5)
    for w in bracket(mr) + bracket(nr):
        yield _conv(5, 9, 1, w)
    for i, c in enumerate(bracket(4) + bracket(16)):
        yield _conv(
            c,
            c,
            7,
            6 + i,
            kernel=(3, 3),
            group=c,
            pads=(1, 1, 1, 1),
            strides=(1 + i % 2, 1 + i % 2),
        )
        yield _conv(
            c, c, 9, 11, kernel=(5, 5), group=c, pads=(2, 2, 2, 2), dilations=(1 + i % 2, 1)
        )
    yield _conv(8, 8, 6, 20, kernel=(3, 3), group=8, pads=(0, 0, 2, 2))
    yield _conv(6, 10, 8, 9, kernel=(3, 3), pads=(1, 1, 1, 1), strides=(2, 2))
    yield _conv(3, 13, 17, 19, kernel=(7, 7), pads=(3, 3, 3, 3), strides=(2, 2))
    yield _conv(6, 14, 9, 9, kernel=(3, 3), group=2, pads=(2, 2, 2, 2), dilations=(2, 2))
    yield _conv(70, 20, 12, 12, kernel=(3, 3), pads=(1, 1, 1, 1))
    if "f" in row.params:
        yield from _winograd_trials(row)
    if row.derive == "depthwise_rows":
        # whole and narrower blocks of channels, all at once and in parts
        for c, kernel, stride in ((24, 3, 1), (44, 5, 2), (212, 3, 1), (200, 3, 2)):
            pads = (kernel // 2,) * 4
            yield _conv(
                c, c, 9, 8, kernel=(kernel, kernel), group=c, pads=pads, strides=(stride, stride)
            )
    if "products" in row.params:
        # halves around the tile, of an odd number of pixels too, panels around whole ones, parts
        for i, w in enumerate((1, 2, *(2 * n + i % 2 for i, n in enumerate(bracket(mr))))):
            yield _conv(8 + 8 * i, 2 * nr * (1 + i % 3) + 8 * (i % 2), 1, w)
        yield from (_conv(1184, 24, 3, 3), _conv(64, 128, 31, 33))
    if "last" in row.params:
        for i, m in enumerate(bracket(nr)):
            yield _conv(4 + 4 * i, m, 1, bracket(mr)[i])
        # lines fetched ahead; depth in parts and columns in blocks, too; a block of a few rows
        yield from (_conv(64, 52, 31, 33), _conv(512, 300, 13, 13), _conv(720, 36, 3, 3))


def _half_conv_trials(row: Kernel) -> Iterator[Case]:
    """Channels around a panel and a vector, pixels around a tile, depths around four and in chunks,
    windows that hang over and that do not, blocks of pixels or rows."""
    mr, nr = row.params.get("mr", 4), row.params.get("nr", 8)
    for i, m in enumerate(sorted({*bracket(nr), 7, 8, 12})):
        yield _conv(1 + 3 * i, m, 1, bracket(mr)[i % len(bracket(mr))])
    for c in (8, 24, 40):
        for i, stride in enumerate((1, 2)):
            window = dict(kernel=(3 + 2 * i,) * 2, group=c, strides=(stride, stride))
            yield _conv(c, c, 7, 6 + i, pads=(1 + i,) * 4, **window)
    yield _conv(328, 328, 9, 8, kernel=(3, 3), group=328, pads=(1, 1, 1, 1))
    yield _conv(8, 8, 6, 20, kernel=(3, 3), group=8, pads=(0, 0, 2, 2))
    yield _conv(6, 10, 8, 9, kernel=(3, 3), pads=(1, 1, 1, 1), strides=(2, 2))
    yield _conv(3, 13, 17, 19, kernel=(7, 7), pads=(3, 3, 3, 3), strides=(2, 2))
    yield _conv(5, 9, 9, 9, kernel=(3, 2), pads=(2, 0, 2, 0), dilations=(2, 1))
    yield _conv(8, 9, 9, 9, kernel=(3, 3), strides=(2, 2))
    yield _conv(134, 11, 1, 3)
    yield _conv(131, 9, 3, 4, kernel=(2, 1))
    yield _conv(96, 20, 30, 35, kernel=(3, 3), pads=(1, 1, 1, 1))
    yield Case(((2, 12, 20, 60), (18, 12, 1, 1), (18,)), {}, (1, 2))


def _half_winograd_trials(row: Kernel) -> Iterator[Case]:
    """Sizes around one and two output tiles, all kinds of padding, channels around a panel, two
    images, several blocks, sums in chunks."""
    pads = ((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1), (2, 1, 0, 2))
    for i, m in enumerate((*bracket(row.params["nr"]), 8, 12)):
        h, w = 3 + i % 3, 3 + i % 5
        yield _conv(8 * (1 + i % 3), m, h, w, kernel=(3, 3), pads=pads[i % 4])
    images = ((2, 16, 9, 10), (40, 16, 3, 3), (40,))
    yield Case(images, {"pads": pads[1]}, (1, 2))
    yield _conv(136, 24, 20, 22, kernel=(3, 3), pads=pads[1])


def _winograd_trials(row: Kernel) -> Iterator[Case]:
    """Heights and widths around one and two output tiles, channels around vectors and panels, all
    kinds of padding, two images, a layer of several blocks of tiles; kernel and stride are the
    row's."""
    f, nr, k, s = row.params["f"], row.params["nr"], row.when["kh"], row.when["sh"]
    fx = row.params.get("fx", f)
    window = dict(kernel=(k, k), strides=(s, s))
    pads = ((0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1), (2, 1, 0, 2))
    for i, (c, m) in enumerate(zip((1, 3, 4, 16, 21), bracket(nr), strict=True)):
        for j in (i, i + 2):
            h, w = bracket(f)[j % len(bracket(f))], 2 * fx - 1 + j % 3
            yield _conv(c, m, s * (h - 1) + k, s * (w - 1) + k, pads=pads[j % 4], **window)
    images = ((2, 20, s * f + k, 9 * s), (2 * nr, 20, k, k), (2 * nr,))
    yield Case(images, {"pads": pads[1], "strides": (s, s)}, (1, 2))
    yield _conv(512 // f, 3 * nr, 8 * f * s, 5 * f * s + 1, pads=pads[1], **window)
    for c in row.when.get("c", ()):
        yield _conv(c, 20, 9 * s, 11 * s, pads=(k // 2,) * 4, **window)


def _dense_trials(row: Kernel) -> Iterator[Case]:
    if row.when.get("sparse"):
        yield from _sparse_dense_trials(row)
        return
    for n in bracket(row.params.get("nr", 8)):
        for m, k in ((1, 1), (1, 37), (3, 8)):
            yield Case(((m, k), (k, n), (n,)), {}, (1, 2))
    if row.isa == "fp16":
        yield Case(((2, 531), (531, 44), (44,)), {}, (1, 2))
    elif "last" in row.params:
        yield Case(((107, 512), (512, 515), (515,)), {}, (1, 2))


def _conv_transpose_trials(row: Kernel) -> Iterator[Case]:
    """Channels around a panel and a vector, widths around a tile, strides, dilations, padding."""
    mr, nr = row.params.get("mr", 4), row.params.get("nr", 8)
    for i, (m, c) in enumerate(zip(bracket(nr), bracket(4), strict=True)):
        stride, dilation = 1 + i % 3, 1 + i % 2
        how = {"strides": (2, stride), "dilations": (dilation, 1), "pads": (0, 1, 1, i % 2)}
        yield Case(((1 + i % 2, c, 3, bracket(mr)[i]), (c, m, 3, 4), (m,)), how, (1, 2))
    how = {"strides": (3, 3), "pads": (1, 1, 0, 0)}
    yield Case(((1, 21, 5, 2 * mr + 1), (21, 2 * nr, 2, 2)), how, (1,))


def _batch_matmul_trials(row: Kernel) -> Iterator[Case]:
    """Rows and columns around a tile; a shared operand."""
    sizes = zip(bracket(row.params.get("mr", 4)), bracket(row.params.get("nr", 16)), strict=True)
    for i, (m, n) in enumerate(sizes):
        yield Case(((2, 3, m, 5 + i), (2, 3, 5 + i, n + 1)))
        yield Case(((3, m + 2, 7), (1, 7, n)))


def _transpose_trials(row: Kernel) -> Iterator[Case]:
    """Matrices, alone and in a batch, of sizes around a vector, a line and a block."""
    for p, q in ((3, 9), (9, 3), (4, 18), (2, 5), (17, 2), (35, 50), (50, 35), (150, 170), (70, 1)):
        yield Case(((q, p),), {"perm": (1, 0)})
        yield Case(((2, q, p),), {"perm": (0, 2, 1)})
        yield Case(((q, 3, p),), {"perm": (2, 1, 0)})
        yield Case(((q, 3, p),), {"perm": (1, 2, 0)})
    yield from (Case(((600, 7),), {"perm": (1, 0)}), Case(((7, 600),), {"perm": (1, 0)}))
    yield Case(((520, 530),), {"perm": (1, 0)})


def _bits(row: Kernel) -> int:
    """The most bits of weights that a row can take."""
    return max(row.when.get("bits", [quantised.BITS]))


def _qconv_trials(row: Kernel) -> Iterator[Case]:
    """Pixels around a tile, channels around 4 and 16, depths around steps and loops of them,
    several blocks; windows that hang over; depthwise blocks of 16 and 8; images of few channels."""
    qconv_case = partial(quantised.qconv_case, bits=_bits(row))
    for i, w in enumerate(bracket(row.params.get("mr", 4))):
        yield qconv_case((1, 8 * (1 + i), 1, w), bracket(4)[i], (1, 1))
        yield qconv_case((1, 32 * (1 + i), 1, w), bracket(16)[i], (1, 1))
        yield qconv_case((1, (144, 152, 160, 200, 328)[i], 1, w), bracket(16)[i], (1, 1))
    yield qconv_case((2, 40, 9, 31), 10, (1, 1), low=-7)
    yield qconv_case((1, 3, 17, 19), 13, (7, 7), pads=(3, 3, 3, 3), strides=(2, 2))
    yield qconv_case((2, 21, 12, 12), 9, (3, 3), pads=(1, 1, 1, 1))
    yield qconv_case((1, 16, 9, 9), 8, (3, 2), pads=(2, 0, 2, 0), dilations=(2, 1))
    yield qconv_case((1, 6, 8, 9), 10, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2))
    for h, w, c, m in ((8, 8, 8, 16), (9, 7, 24, 16), (4, 37, 16, 32), (6, 6, 32, 16)):
        yield qconv_case((2, c, h, w), m, (3, 3), pads=(h % 4 and 1, 1, h % 2, w % 2))
    yield qconv_case((1, 64, 30, 30), 16, (3, 3), pads=(1, 1, 1, 1))
    if "im2col" in row.name:  # depths in several parts, tiles and what is left of them
        for c, m in ((2 * 144, 21), (5 * 128, 16)):
            yield qconv_case((1, c, 3, 5), m, (3, 3), pads=(1, 1, 1, 1))
    if "winograd" in row.name:  # weights in 3 and 6 parts, several blocks, what is left of tiles
        for shape in ((2, 24, 10, 17), (1, 72, 4, 116)):
            yield qconv_case(shape, 16, (3, 3), pads=(1, 1, 1, 1))
    for m in (16, 21):
        yield qconv_case((1, 64, 5, 7), m, (1, 1), reals=1)
        yield qconv_case((1, 16, 5, 7), m, (3, 3), pads=(1, 1, 1, 1), reals=1)
    for c, kernel, stride in ((8, 3, 1), (16, 3, 2), (24, 5, 1), (40, 3, 1), (32, 7, 2)):
        window = dict(group=c, strides=(stride, stride))
        yield qconv_case((2, c, 9, 8), c, (kernel,) * 2, pads=(kernel // 2,) * 4, **window)
    yield qconv_case((1, 16, 9, 11), 16, (3, 3), group=16, pads=(2, 2, 2, 2), dilations=(2, 2))
    yield qconv_case((1, 8, 6, 20), 8, (3, 3), group=8, pads=(0, 0, 2, 2))
    yield qconv_case((1, 8, 6, 7), 8, (1, 1), group=8, strides=(3, 3))
    for w, m in zip(range(4, 9), (8, 16, 24, 32, 40), strict=True):
        yield qconv_case((2, 1 + w % 4, 7, w), m, (3, 3), pads=(1, 1, 1, 1))
        yield qconv_case((2, 3, 9, 2 * w), m, (3, 3), pads=(0, 0, 1, 1), strides=(2, 2))
    yield qconv_case((2, 1, 6, 9), 8, (5, 5), pads=(2, 2, 2, 2))
    yield qconv_case((2, 2, 8, 10), 24, (4, 2))
    yield qconv_case((1, 3, 6, 9), 16, (3, 3), pads=(2, 0, 2, 0))
    yield qconv_case((2, 4, 11, 13), 8, (2, 3), pads=(1, 0, 0, 2), strides=(4, 3))
    yield qconv_case((1, 1, 5, 6), 16, (1, 1), strides=(2, 2))


def _qdense_trials(row: Kernel) -> Iterator[Case]:
    for n in (*bracket(4), 16, 31):
        for m, k in ((1, 8), (1, 40), (6, 16)):
            yield quantised.qdense_case(m, k, n, bits=_bits(row))
            yield quantised.qdense_case(m, 32 * -(-k // 32), n, bits=_bits(row))
    yield quantised.qdense_case(107, 512, 19, bits=_bits(row))
    for m, n in ((1, 17), (9, 32)):
        yield quantised.qdense_case(m, 64, n, bits=_bits(row), reals=1)


TILED = {
    "BatchMatMul": _batch_matmul_trials,
    "Conv": _conv_trials,
    "ConvTranspose": _conv_transpose_trials,
    "Dense": _dense_trials,
    "QConv": _qconv_trials,
    "QDense": _qdense_trials,
    "Transpose": _transpose_trials,
}


def trials(row: Kernel) -> list[Trial]:
    """Every layer this row is tested on. Activations and residuals take turns over the cases."""
    out: list[Trial] = []
    dtype = DType.F32 if {"f32", "any"} & set(row.dtype) else DType(row.dtype[0])
    layouts = ("nchw", "nhwc") if row.layout == "any" else (row.layout,)
    half_winograd = row.isa == "fp16" and "f" in row.params
    choices = [a for a in ACTIVATIONS if not half_winograd or a is None or a.op not in STEEP]
    for op in OPS.values():
        if op.family != row.family:
            continue
        fused = 0
        cases = [*_own_cases(op.name), *(TILED[op.name](row) if op.name in TILED else ())]
        for i, case in enumerate(cases):
            for layout in layouts[: 1 + i % 2]:
                out.append(Trial(op.name, case, layout, dtype=dtype))
                # hand-ordered tiles are tried with everything; steep functions of many products
                # would show Winograd's rounding
                hand = "last" in row.params and "f" not in row.params
                most = 2 * len(cases if hand else ACTIVATIONS)
                if row.isa == "fp16":  # compiled for an emulator, which takes its time
                    most = len(ACTIVATIONS)
                if "activation" in op.fuses and (dtype in FLOATS or op.whole) and fused < most:
                    fused += 1
                    act = choices[fused % len(choices)]
                    if (op.whole or "residual" not in op.fuses) and act and act.slope:
                        act = None
                    more = "residual" in op.fuses and i % 3 != 0
                    out.append(Trial(op.name, case, layout, act, more, dtype))
    return [t for t in out if not refusal(row, layer_of(*_one(t), t.layout, "nchw"), ISAS)]


def _own_cases(name: str) -> tuple[Case, ...]:
    """An operator's cases; a canonical form borrows those of the operators that expand into it."""
    if OPS[name].cases:
        return OPS[name].cases
    parent = OPS.get(name.rstrip("23"))
    return tuple(c for c in parent.cases if _equal_ranks(c)) if parent is not None else ()


def _equal_ranks(case: Case) -> bool:
    return len({len(np.shape(s) if isinstance(s, np.ndarray) else s) for s in case.inputs}) == 1


def _one(trial: Trial) -> tuple[Graph, Node]:
    graph = make_graph([trial], seed=0)
    return graph, next(n for n in graph.nodes if n.op == trial.op)


def make_graph(batch: list[Trial], seed: int) -> Graph:
    """One graph in which every trial is a node of its own, with its own inputs and outputs."""
    rng = np.random.default_rng(seed)
    b = Builder("trials")
    inputs: list[str] = []
    outputs: list[str] = []
    for i, trial in enumerate(batch):
        names = []
        for j, spec in enumerate(trial.case.inputs):
            if spec is None:
                names.append("")
                continue
            value = (
                spec
                if isinstance(spec, np.ndarray)
                else (
                    rng.standard_normal(spec).astype(trial.dtype.numpy)
                    if trial.dtype in FLOATS
                    else rng.integers(0 if trial.dtype == DType.BOOL else 1, 9, spec).astype(
                        trial.dtype.numpy
                    )
                )
            )
            name = f"t{i}_x{j}"
            if j in trial.case.constants:
                names.append(b.constant(name, value))
            else:
                b.input(Tensor(name, value.shape, DType.of(value.dtype)))
                inputs.append(name)
                names.append(name)
        made = b.add(trial.op, names, trial.case.attrs, f"t{i}")
        outputs += made
        _decorate(b, trial, i, made[0], inputs, rng)
    return mark_sparse(b.graph(inputs, outputs))


def _decorate(
    b: Builder, trial: Trial, i: int, out: str, inputs: list[str], rng: np.random.Generator
) -> None:
    """Give the last node its residual and activation."""
    node = b.nodes[-1]
    shape = b.tensors[out].shape
    if trial.residual:
        name = f"t{i}_r"
        b.input(Tensor(name, shape, trial.dtype))
        inputs.append(name)
        node = replace(node, residual=name)
    if trial.activation:
        act = trial.activation
        if act.slope:
            slopes = rng.standard_normal(shape[1]).astype(trial.dtype.numpy)
            slope = b.constant(f"t{i}_slope", slopes)
            act = Activation(act.op, (), slope)
        node = replace(node, activation=act)
    b.nodes[-1] = node


def plan_nodes(graph: Graph, batch: list[Trial], row: Kernel) -> dict[str, Choice]:
    """The row under test for every trial's node."""
    layouts = {f"t{i}": t.layout for i, t in enumerate(batch)}
    return {n.name: Choice(row.name, layouts[n.name]) for n in graph.nodes}
