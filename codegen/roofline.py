"""Roofline picture of a measured network (Williams, Waterman and Patterson, CACM 52, 2009), as a
self-contained SVG document that follows the reader's light or dark theme.

One dot per layer, its area the layer's share of the time. x is floating-point operations per byte
that L1D reads, so the L2 roof holds for every layer, and the memory roof for one all of whose lines
come from memory. Layers without multiply-adds lie in a row of their own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from codegen.run.virtual.bandwidth import Roofs
from codegen.svg_text import (
    CHAR,
    FONT,
    Box,
    Disc,
    box,
    leader,
    line,
    number,
    overlap,
    places,
    text_at,
)  # fmt: skip

# Pixels.
_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT, _ROW, _BOTTOM = 960, 74, 24, 92, 440, 66, 40
_DOT, _LEAST = 52.0, 2.5  # radius of a layer that takes all of the time, and of the smallest
_NAMED = 0.03  # of the time: layers that get their name written beside them
_NAME_LENGTH = 28
_COLOURS = {"compute": "#3b82c4", "L2": "#e0932f", "memory": "#cf4638", "branch": "#8b6bc0"}
_STYLE = """
.back { fill: #ffffff } .ink { fill: #22303c } .soft { fill: #5c6b78 }
.grid { stroke: #e3e7eb } .axis { stroke: #8895a1 } .roof { stroke: #22303c; fill: none }
.name { fill: #22303c; stroke: #ffffff; stroke-width: 3px; paint-order: stroke }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117 } .ink { fill: #e6edf3 } .soft { fill: #9aa7b4 }
.grid { stroke: #242c36 } .axis { stroke: #5c6b78 } .roof { stroke: #e6edf3 }
.name { fill: #e6edf3; stroke: #0d1117 }
}
"""


@dataclass(frozen=True)
class _Axis:
    """Logarithmic; values from low to high lie on pixels from start to end."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + (self.end - self.start) * min(max(part, 0.0), 1.0)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        values = (m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5))
        return [v for v in values if self.low <= v <= self.high]


@dataclass(frozen=True)
class _Dot(Disc):
    """A layer in the picture."""

    row: Mapping[str, Any]
    share: float


@dataclass(frozen=True)
class _Tops:
    """GFLOP/s, and GB/s."""

    flops: float
    l2: float
    memory: float


def roofline_svg(result: Mapping[str, Any], roofs: Roofs) -> str:
    """The picture of what `measured.modelled` gave. Equal arguments give equal text."""
    clock = result["clock_hz"] / 1e9
    tops = _Tops(roofs.flops * clock, roofs.l2 * clock, roofs.memory * clock)
    working = [r for r in result["layers"] if r["macs"] and r["cycles"]]
    resting = [r for r in result["layers"] if not r["macs"] and r["cycles"]]
    x, y = _axes(working, tops)
    dots = _dots(working, x, y, result["cycles"])
    row = _row(resting, result["cycles"])
    parts = [
        f"<title>{escape(_title(result))}</title>",
        f"<style>{_STYLE}</style>",
        '<rect class="back" width="100%" height="100%"/>',
        *_heading(result),
        *_grid(x, y),
        *_roofs(x, y, tops),
        *map(_circle, dots + row),
        *_labels(dots, y.start, _peak_box(x, y, tops)),
        *_row_texts(row),
    ]
    height = _TOP + _PLOT + _ROW + _BOTTOM
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="{FONT}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _axes(rows: Sequence[Mapping[str, Any]], tops: _Tops) -> tuple[_Axis, _Axis]:
    """Room for every layer and for the ridges, where the roofs meet."""
    slowest = min(tops.l2, tops.memory)
    ridge = tops.flops / slowest
    xs = [x for x in map(_intensity, rows) if x]
    ys = [r["gflops"] for r in rows if r["gflops"]]
    low, high = min([*xs, ridge / 3]) / 1.5, max([*xs, ridge * 3]) * 1.5
    bottom = min([*ys, tops.flops / 12]) / 1.5
    return (
        _Axis(low, high, _LEFT, _WIDTH - _RIGHT),
        _Axis(bottom, tops.flops * 1.7, _TOP + _PLOT, _TOP),
    )


def _dots(rows: Sequence[Mapping[str, Any]], x: _Axis, y: _Axis, total: int) -> list[_Dot]:
    """The largest first, so that small ones lie on top. A layer that moves no line has an endless
    intensity: it lies on the right edge."""
    out = []
    for r in rows:
        share = r["cycles"] / (total or 1)
        place = x.at(_intensity(r) or x.high), y.at(max(r["gflops"], y.low))
        out.append(_Dot(*place, _radius(share), r, share))
    return sorted(out, key=lambda d: -d.radius)


def _intensity(row: Mapping[str, Any]) -> float:
    """FLOP per byte read into L1D; 0 where nothing is."""
    read = row["bytes"]["l1_l2"]["read"]
    return 2 * row["macs"] / read if read else 0.0


def _row(rows: Sequence[Mapping[str, Any]], total: int) -> list[_Dot]:
    """Layers without multiply-adds, side by side below the plot."""
    out, at = [], _LEFT + 128.0
    for r in rows:
        share = r["cycles"] / (total or 1)
        radius = min(_radius(share), _ROW / 2 - 4)
        out.append(_Dot(at + radius, _TOP + _PLOT + _BOTTOM + _ROW / 2, radius, r, share))
        at += 2 * radius + 5
    return out


def _radius(share: float) -> float:
    return max(_LEAST, _DOT * math.sqrt(share))


def _title(result: Mapping[str, Any]) -> str:
    return f"{result['model']} on {result['board']}"


def _heading(result: Mapping[str, Any]) -> list[str]:
    out = [
        text_at(_title(result), _LEFT, 30, size=16, weight="bold"),
        text_at(
            f"{result['ms']:.3f} ms at {result['clock_hz'] / 1e9:g} GHz, {result['gflops']:.2f} "
            "GFLOP/s; a dot's area is the layer's share of the time, its colour what bounds it:",
            _LEFT, 50, kind="soft",
        ),
    ]  # fmt: skip
    at = float(_LEFT)
    for name, colour in _COLOURS.items():
        share = sum(r["cycles"] for r in result["layers"] if r["bound"] == name)
        text = f"{name} ({share / (result['cycles'] or 1):.0%})"
        out.append(f'<circle cx="{number(at + 5)}" cy="66" r="5" fill="{colour}"/>')
        out.append(text_at(text, at + 15, 70))
        at += 15 + len(text) * CHAR + 22
    return out


def _grid(x: _Axis, y: _Axis) -> list[str]:
    out = []
    for value in x.ticks():
        at = x.at(value)
        out.append(line(at, y.start, at, y.end, "grid"))
        out.append(text_at(f"{value:g}", at, y.start + 16, anchor="middle", kind="soft"))
    for value in y.ticks():
        at = y.at(value)
        out.append(line(x.start, at, x.end, at, "grid"))
        out.append(text_at(f"{value:g}", x.start - 8, at + 4, anchor="end", kind="soft"))
    out.append(line(x.start, y.start, x.end, y.start, "axis"))
    out.append(line(x.start, y.start, x.start, y.end, "axis"))
    middle = (x.start + x.end) / 2
    out.append(text_at("FLOP per byte that L1D reads", middle, y.start + 33, anchor="middle"))
    height = (y.start + y.end) / 2
    out.append(text_at("GFLOP/s", 20, height, anchor="middle", turn=-90))
    return out


def _roofs(x: _Axis, y: _Axis, tops: _Tops) -> list[str]:
    """The peak, and each bandwidth up to where it meets the peak."""
    peak, out = y.at(tops.flops), []
    lowest = tops.flops / max(tops.l2, tops.memory)
    out.append(line(x.at(lowest), peak, x.end, peak, "roof", 1.8))
    out.append(text_at(_peak_name(tops), x.end - 4, peak - 7, anchor="end"))
    for name, rate, dash in (("L2", tops.l2, None), ("memory", tops.memory, "6 4")):
        left = max(x.low, y.low / rate)
        x1, y1, x2 = x.at(left), y.at(left * rate), x.at(tops.flops / rate)
        out.append(line(x1, y1, x2, peak, "roof", 1.8, dash))
        angle = math.degrees(math.atan2(peak - y1, x2 - x1))
        near, part = tops.l2 >= tops.memory, 0.42
        side = -7 if (name == "L2") == near else 15
        out.append(
            text_at(f"{name}: {rate:.3g} GB/s", x1 + part * (x2 - x1), y1 + part * (peak - y1),
                  anchor="middle", turn=angle, shift=side)
        )  # fmt: skip
    return out


def _peak_name(tops: _Tops) -> str:
    return f"multiply-adds: {tops.flops:.3g} GFLOP/s"


def _circle(d: _Dot) -> str:
    r, colour = d.row, _COLOURS[d.row["bound"]]
    moved = ", ".join(
        f"{sum(r['bytes'][way].values()) / 1024:,.0f} KiB {name}"
        for way, name in (("l1_l2", "between L1D and L2"), ("l2_memory", "to and from memory"))
    )
    speed = f"\n{r['gflops']:.2f} GFLOP/s, {r['peak_percent']:.0f} % of peak" if r["macs"] else ""
    tip = (
        f"{r['name']}\n{r['kernel']}\n{r['ms']:.3f} ms, {d.share:.1%} of the time; bound: "
        f"{r['bound']}{speed}\n{moved}"
    )
    return (
        f'<circle cx="{number(d.x)}" cy="{number(d.y)}" r="{number(d.radius)}" fill="{colour}" '
        f'fill-opacity="0.55" stroke="{colour}" stroke-width="1.2"><title>{escape(tip)}</title>'
        "</circle>"
    )


def _peak_box(x: _Axis, y: _Axis, tops: _Tops) -> Box:
    width = len(_peak_name(tops)) * CHAR
    return box(x.end - 4 - width / 2, y.at(tops.flops) - 10, width, 2 * FONT)


def _labels(dots: Sequence[_Dot], floor: float, reserved: Box) -> list[str]:
    """Names of the large layers: in or beside their dot, else farther off with a line to it."""
    taken = [reserved]
    out = []
    for d in dots:
        if d.share < _NAMED:
            continue
        name = _short(d.row["name"])
        width = len(name) * CHAR
        others = [box(o.x, o.y, 1.4 * o.radius, 1.4 * o.radius) for o in dots if o is not d]
        for x, y in places(d, width):
            room = box(x, y, width, FONT + 2)
            inside = room[0] > _LEFT and room[2] < _WIDTH - _RIGHT and _TOP < room[1] < floor - FONT
            if inside and not any(overlap(room, other) for other in (*taken, *others)):
                taken.append(room)
                out += leader(d, x, y, width)
                out.append(text_at(name, x, y + 4, anchor="middle", kind="name"))
                break
    return out


def _row_texts(row: Sequence[_Dot]) -> list[str]:
    if not row:
        return []
    y, last = row[0].y, row[-1]
    total = sum(d.share for d in row)
    names = ", ".join(_short(d.row["name"]) for d in row if d.share >= _NAMED)
    out = [
        text_at("no multiply-adds", _LEFT, y - 3),
        text_at(f"{total:.1%} of the time", _LEFT, y + 11, kind="soft"),
    ]
    if names:
        out.append(text_at(f"large ones: {names}", last.x + last.radius + 12, y + 4, kind="soft"))
    return out


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"
