"""How near the layers of networks are to what a core can do: `python -m benchmarks.layers`.

Writes docs/LAYERS.md: for each core, the matrix products of 20 million multiply-adds or more
against the peak of its multiply-adds, and depthwise convolutions against the roofline of the L2
cache (multiply-adds at the peak, or input and output once at L2's bandwidth, whichever is longer).
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.report import DOCS
from benchmarks.peers.sweep import BOARDS
from codegen.board import Board, load_board
from codegen.graph import Node
from codegen.groups import regroup
from codegen.layer import layer_of
from codegen.models.fetch import fetch, write_atomically
from codegen.ops import OPS
from codegen.pipeline import generate
from codegen.run.virtual.bandwidth import Roofs, roofs
from codegen.toolchain import find_llvm

NETWORKS = ("squeezenet1_1", "mobilenet_v3", "mobilenet_v2", "efficientnet_lite0", "mobilenet_v1",
            "resnet18", "light_resnet50")  # fmt: skip
LEAST_MACS = 20_000_000
INTRO = f"""# How near are layers to what the core can do?

Modelled, by the fastest plans that `codegen build` makes without a search, exact enough or not;
`python -m benchmarks.layers` writes this file.

- **Matrix products**: convolutions of one pixel with at least {LEAST_MACS // 1_000_000} million
  multiply-adds that a step of their own computes. Their share of the peak counts the layer's
  multiply-adds, whatever the kernel executes: Strassen's algorithm executes seven eighths.
- **Windows**: larger convolutions. Winograd executes a fraction of their multiply-adds, so that
  they may pass 100 %.
- **Chains** compute an inverted residual, or a depthwise convolution and a neighbour, in bands.
- **Depthwise** convolutions, against the roofline of L2: input and output once at L2's bandwidth,
  or multiply-adds at the peak. In a network the weights of other layers stream through L2 between
  a layer's input and its output, so that lines of the output have to come from memory, which this
  roof does not count: the column `memory`.
"""
KINDS = {"product": "Matrix products", "window": "Windows", "chain": "Chains",
         "depthwise": "Depthwise"}  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One layer: `percent` of the peak, or for a depthwise convolution of the roofline; `parts`:
    cycles by cause."""

    network: str
    name: str
    kind: str
    kernel: str
    macs: int
    percent: float
    parts: Mapping[str, int]


def main() -> None:
    """Measure and write the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("--core", default=",".join(BOARDS), metavar="A,B")
    parser.add_argument("--model", default=",".join(NETWORKS), metavar="A,B")
    options = parser.parse_args()
    parts = [INTRO]
    for core in options.core.split(","):
        board = load_board(BOARDS[core])
        found = [x for m in options.model.split(",") for x in measure(m, board)]
        parts += section(board.core, found)
        print(core, flush=True)
    write_atomically(DOCS / "LAYERS.md", ("\n".join(parts).rstrip() + "\n").encode())


def measure(model: str, board: Board) -> list[Measured]:
    """The layers of a network that are of one of the kinds."""
    path = fetch(model)
    command = [sys.executable, "-m", "codegen.cli", "bench", str(path), "--board", board.name]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{model} on {board.name}: {done.stderr}")
    generated = generate(path, board)
    graph = regroup(generated.graph, generated.plan.groups)
    nodes = {n.name: n for n in graph.nodes}
    tops = roofs(board.cycle_model, str(find_llvm("llvm-mca")))
    out = []
    for row in json.loads(done.stdout)["layers"]:
        node = nodes.get(row["name"])
        kind = _kind(node, layer_of(graph, node, "nhwc").dims) if node and row["macs"] else ""
        if not kind or (kind != "depthwise" and row["macs"] < LEAST_MACS):
            continue
        percent = row["peak_percent"]
        if kind == "depthwise":
            moved = sum(graph.tensors[t].bytes for t in (node.inputs[0], *node.outputs))
            percent = 100 * least_cycles(row["macs"], moved, tops) / row["cycles"]
        parts = {p: row[p] for p in ("core", "branch", "l2", "memory")}
        out.append(Measured(model, row["name"], kind, row["kernel"], row["macs"], percent, parts))
    return out


def least_cycles(macs: int, moved: int, tops: Roofs) -> float:
    """The roofline of L2: multiply-adds at the core's peak, or bytes at L2's bandwidth."""
    return max(2 * macs / tops.flops, moved / tops.l2)


def _kind(node: Node, dims: Mapping[str, Any]) -> str:
    family = OPS[node.op].family
    if family == "conv_chain":
        return "chain"
    if family != "conv2d":
        return ""
    if dims["groups"] == 1:
        return "product" if dims["kh"] * dims["kw"] == 1 else "window"
    return "depthwise" if dims["groups"] == dims["c"] == dims["m"] else ""


def section(core: str, found: Sequence[Measured]) -> list[str]:
    """A summary by kind, then the layers that are furthest from the limit."""
    lines = [f"## {core.capitalize()}", "", "| | layers | least | median | weighted mean | best |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for kind, title in KINDS.items():
        some = sorted(x.percent for x in found if x.kind == kind)
        if some:
            mean = _mean([x for x in found if x.kind == kind])
            values = (some[0], statistics.median(some), mean, some[-1])
            cells = " | ".join(f"{v:.0f} %" for v in values)
            lines.append(f"| {title} | {len(some)} | {cells} |")
    lines += ["", "The three furthest from the limit of each kind, and where their cycles go:", "",
              "| | layer | kernel | MMAC | of the limit | core | branch | L2 | memory |",
              "|---|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for kind, title in KINDS.items():
        for x in sorted((x for x in found if x.kind == kind), key=lambda x: x.percent)[:3]:
            total = sum(x.parts.values())
            shares = " | ".join(f"{v / total:.0%}" for v in x.parts.values())
            lines.append(f"| {title} | {x.network}, {x.name} | {x.kernel} | {x.macs / 1e6:.1f} | "
                         f"{x.percent:.0f} % | {shares} |")  # fmt: skip
    return [*lines, ""]


def _mean(some: Sequence[Measured]) -> float:
    """Of multiply-adds: what the layers reach together."""
    return sum(x.macs for x in some) / sum(x.macs / x.percent for x in some)


if __name__ == "__main__":
    main()
