"""The network drawn as a graph, from top to bottom, each layer coloured by what computes it."""

import colorsys
import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

from codegen.graph import Graph

_BOX, _GAP, _ROW, _HIGH = 210, 16, 40, 26


def network_svg(graph: Graph, kernels: Mapping[str, str], ms: Mapping[str, float]) -> str:
    """`graph` has the plan's groups as nodes; `kernels` and `ms` by node, absent for views."""
    rows = _rows(graph)
    widest = max(rows.count(r) for r in set(rows)) if rows else 1
    width = widest * (_BOX + _GAP) + _GAP
    place: dict[str, tuple[float, float]] = {}
    filled: dict[int, int] = {}
    for node, row in zip(graph.nodes, rows, strict=True):
        column = filled.get(row, 0)
        filled[row] = column + 1
        left = (width - rows.count(row) * (_BOX + _GAP) + _GAP) / 2
        place[node.name] = left + column * (_BOX + _GAP), 8 + row * _ROW
    makers = graph.producers()
    parts = []
    for node in graph.nodes:
        x, y = place[node.name]
        for tensor in dict.fromkeys(node.reads):
            if tensor in makers:
                a, b = place[makers[tensor].name]
                parts.append(f'<line x1="{a + _BOX / 2:.0f}" y1="{b + _HIGH:.0f}" '
                             f'x2="{x + _BOX / 2:.0f}" y2="{y:.0f}" stroke="#aaa"/>')  # fmt: skip
    parts += [_box(*place[n.name], n.name, n.op, kernels.get(n.name, ""), ms.get(n.name))
              for n in graph.nodes]  # fmt: skip
    height = 16 + (max(rows, default=0) + 1) * _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-size="10" font-family="Helvetica, Arial, sans-serif">'
        f"<title>{escape(graph.name)}</title>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def algorithm(kernel: str) -> str:
    """`conv2d nhwc gemm` of conv2d_nhwc_f32_neon_gemm_8x8: what a colour stands for."""
    words = [w for w in kernel.split("_") if w not in ("f32", "neon", "inorder", "any")]
    kept = [w for w in words if w and not re.fullmatch(r"k?\d.*", w)]
    return " ".join(kept[:4])


def colour(text: str) -> str:
    """The same text always has the same light colour."""
    hue = sum(ord(c) * (i + 7) for i, c in enumerate(text)) * 0.618 % 1
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, 0.83, 0.6))


def _box(x: float, y: float, name: str, op: str, kernel: str, ms: float | None) -> str:
    fill = colour(algorithm(kernel)) if kernel else "#f4f4f4"
    cost = f", {ms:.3f} ms" if ms is not None else ""
    return (
        f"<g><title>{escape(f'{name} ({op}): ' + (kernel or 'a view') + cost)}</title>"
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{_BOX}" height="{_HIGH}" rx="3" fill="{fill}" '
        'stroke="#888"/>'
        f'<text x="{x + 5:.0f}" y="{y + 11:.0f}">{escape(_short(name, 38))}</text>'
        f'<text x="{x + 5:.0f}" y="{y + 22:.0f}" fill="#444">'
        f"{escape(_short(algorithm(kernel) or op, 30) + cost)}</text></g>"
    )


def _rows(graph: Graph) -> list[int]:
    """Per node, the length of the longest way to it."""
    depth: dict[str, int] = {}
    out = []
    for node in graph.nodes:
        row = max((depth.get(t, -1) for t in node.reads), default=-1) + 1
        depth.update(dict.fromkeys(node.outputs, row))
        out.append(row)
    return out


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"
