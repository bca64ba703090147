"""What sparse weights save: `python -m benchmarks.sparse` writes docs/SPARSITY.md.

Single layers are priced on the virtual boards with so many of their blocks of weights zeros, by the
fastest row that uses them and by the fastest that does not. MobileNetV1 is built whole, as it is
and with the blocks of least magnitude of its 1x1 convolutions and of its classifier set to zero.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.peers.report import DOCS
from benchmarks.peers.sweep import BOARDS
from codegen.board import Board, load_board
from codegen.builder import Builder
from codegen.graph import Graph, Tensor
from codegen.kernels import load_kernels
from codegen.layout import LAYOUTS
from codegen.models.fetch import fetch, write_atomically
from codegen.passes.sparse import mark_sparse
from codegen.pricing import price_signatures
from codegen.run import pick_runner
from codegen.signature import signature_of
from codegen.sparsity import HEIGHT, LEAST_ZEROS, blocks_high, typical
from codegen.store import Store, store_path
from codegen.types import DType
from rl.promising import promising

# Inputs, outputs, and height and width of the image; 0: a dense layer.
LAYERS = ((32, 64, 112), (128, 128, 56), (256, 256, 28), (512, 512, 14), (1024, 1024, 7),
          (1024, 1000, 0))  # fmt: skip
ZEROS = (0.7, 0.8, 0.9)
# Rows without sparse weights that are expected to take so many times what the best one does.
_FACTOR, _MOST = 1.6, 7
NETWORK, PRUNED = "mobilenet_v1", 0.8

INTRO = f"""# Sparse weights

Weights of 1x1 convolutions and dense layers that come with many zeros, as pruning leaves them, are
stored without these: in blocks of {HEIGHT} outputs x 1 input, of which those that are not all zeros
are kept, with the index of their input, as constants of the library. Kernels for that
(`*_sparse_*`) are candidates like any other where at least {LEAST_ZEROS:.0%} of a layer's blocks
are zeros, in float32; the cost formula, a search or a plan takes them where they pay. The code of
other networks is what it was.

- Prune whole blocks: the same input of outputs 4i to 4i + 3 (the last block may have fewer). Zeros
  anywhere else save nothing, and a block with one weight costs as much as a full one.
- A zero that is left out has no product: where the other factor is infinite or not a number, the
  result is not what onnxruntime computes.
- A kept block takes 18 bytes, 4 weights and an index of 16 bits, instead of 16.

A kernel for convolutions brings up to 320 inputs of up to 16 pixels into L1, as rows of pixels,
and then goes over the blocks, the sums of 4 outputs for all 16 pixels in registers.

All figures are from the virtual boards, and which blocks are zeros is random: a pattern that is
very uneven may be slower. `python -m benchmarks.sparse` writes this file.

## Layers

Thousands of cycles, weights in memory at first, by the fastest row without and with sparse weights,
by share of zero blocks, and the ratio of the two.
"""
NETWORKS = f"""## A network

MobileNetV1 with seeded weights by the plan that `codegen build` makes by itself, and with
{PRUNED:.0%} of the blocks of each 1x1 convolution and of the classifier set to zero, those of least
magnitude. Nothing was trained, so that this tells time and size and nothing of accuracy. Sizes are
of weights as packed.

| core | dense, ms | sparse, ms | | dense, MiB | sparse, MiB | steps by sparse rows |
|---|---:|---:|---:|---:|---:|---:|"""


def main() -> None:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__)
    parser.add_argument("--core", default=",".join(BOARDS), metavar="A,B")
    cores = parser.parse_args().core.split(",")
    boards = {core: load_board(BOARDS[core]) for core in cores}
    parts = [INTRO]
    for core, board in boards.items():
        parts += [f"### Cortex-{core.upper()}", "", *layers(board), ""]
        print(f"layers on {core}", flush=True)
    parts.append(NETWORKS)
    with tempfile.TemporaryDirectory() as folder:
        dense = fetch(NETWORK)
        sparse = Path(folder) / f"{NETWORK}.onnx"
        sparse.write_bytes(pruned(onnx.load(dense), PRUNED).SerializeToString())
        for core, board in boards.items():
            cells = network(dense, sparse, board, Path(folder))
            parts.append(f"| Cortex-{core.upper()} | {cells} |")
            print(f"{NETWORK} on {core}", flush=True)
    write_atomically(DOCS / "SPARSITY.md", ("\n".join(parts) + "\n").encode())


def layers(board: Board) -> Iterator[str]:
    """A table of all layers on a board."""
    yield "| layer | dense | " + " | ".join(f"{z:.0%} zeros | " for z in ZEROS) + " |"
    yield "|---|---:|" + "---:|---:|" * len(ZEROS)
    graphs = {(layer, z): layer_graph(*layer, z) for layer in LAYERS for z in (0.0, *ZEROS)}
    signatures = {k: signature_of(g, g.nodes[0]) for k, g in graphs.items()}
    sparse = [r.name for r in load_kernels().values() if r.when.get("sparse")]
    rows = dict.fromkeys(signatures.values(), sparse)
    for layer in LAYERS:
        graph = graphs[layer, 0.0]
        found = [promising(graph, graph.nodes[0], board, x, _FACTOR, _MOST) for x in LAYOUTS]
        rows[signatures[layer, 0.0]] = [row.name for some in found for _, row in some]
    prices = price_signatures(
        list(rows), board, pick_runner(board, "virtual"), Store(store_path()), rows
    )
    for layer in LAYERS:
        c, m, extent = layer
        name = f"{c} to {m}, {extent} x {extent}" if extent else f"{c} to {m}, dense"
        best = {
            z: min(p.cost for p in prices[signatures[layer, z]].values() if not p.error) / 1e3
            for z in (0.0, *ZEROS)
        }
        cells = " | ".join(f"{best[z]:,.0f} | {best[0.0] / best[z]:.1f}x" for z in ZEROS)
        yield f"| {name} | {best[0.0]:,.0f} | {cells} |"


def layer_graph(c: int, m: int, extent: int, zeros: float) -> Graph:
    """A layer with so large a share of its blocks of weights zeros."""
    b = Builder("layer")
    total = c * blocks_high(m)
    weights = typical(c, m, total - math.ceil(zeros * total))
    if extent:
        weights = np.ascontiguousarray(weights.T).reshape(m, c, 1, 1)
    b.input(Tensor("x", (1, c, extent, extent) if extent else (1, c), DType.F32))
    constants = [b.constant("w", weights), b.constant("b", np.zeros(m, np.float32))]
    return mark_sparse(
        b.graph(["x"], b.add("Conv" if extent else "Dense", ["x", *constants], {}, "layer"))
    )


def pruned(model: onnx.ModelProto, zeros: float) -> onnx.ModelProto:
    """The model with so large a share of the blocks of each 1x1 convolution and Gemm zeros."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    values = {t.name: t for t in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in values:
            continue
        at = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        w = numpy_helper.to_array(values[node.input[1]])
        if w.ndim == 4 and (w.shape[2:] != (1, 1) or at.get("group", 1) > 1):
            continue
        by_output = w.ndim == 4 or at.get("transB", 0)
        rows = w.reshape(w.shape[:2]) if by_output else w.T
        kept = (_prune(rows, zeros) if by_output else _prune(rows, zeros).T).reshape(w.shape)
        values[node.input[1]].CopyFrom(numpy_helper.from_array(kept, node.input[1]))
    return made


def _prune(rows: np.ndarray, zeros: float) -> np.ndarray:
    """[outputs][inputs] with the blocks of least magnitude set to zero."""
    m, c = rows.shape
    blocks = np.pad(np.abs(rows), ((0, -m % HEIGHT), (0, 0))).reshape(-1, HEIGHT, c).sum(axis=1)
    least = np.argsort(blocks, axis=None, kind="stable")[: round(zeros * blocks.size)]
    keep = np.ones(blocks.size, rows.dtype)
    keep[least] = 0
    return np.ascontiguousarray(rows * np.repeat(keep.reshape(-1, c), HEIGHT, axis=0)[:m])


def network(dense: Path, sparse: Path, board: Board, folder: Path) -> str:
    """Cells of a network on a board."""
    (before, _), (after, steps) = (timed(x, board) for x in (dense, sparse))
    sizes = [packed(x, board, folder / f"{board.name}{i}") for i, x in enumerate((dense, sparse))]
    cells = (f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}x",
             *(f"{s / (1 << 20):.1f}" for s in sizes), str(steps))  # fmt: skip
    return " | ".join(cells)


def timed(model: Path, board: Board) -> tuple[float, int]:
    """Milliseconds, and how many steps are by rows for sparse weights."""
    report = json.loads(_codegen("bench", str(model), "--board", board.name, "--json"))
    return report["ms"], sum("_sparse_" in x["kernel"] for x in report["layers"])


def packed(model: Path, board: Board, folder: Path) -> int:
    """Bytes of weights of the library, which is verified against onnxruntime."""
    _codegen("build", str(model), "--board", board.name, "--out", str(folder), "--seeds", "1")
    return json.loads((folder / "report.json").read_text())["weights_bytes"]


def _codegen(*args: str) -> str:
    command: Sequence[str] = (sys.executable, "-m", "codegen.cli", *args)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(args)}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
