"""Charts as SVG text: lines with bands, points, and pairs of bars. Equal arguments give equal
text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 860, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 190, 16, 46
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2",
           "#7f7f7f", "#bcbd22", "#393b79", "#637939")  # fmt: skip
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A named line; `band` is (x, low, high) around it. `dash`: drawn dashed."""

    name: str
    points: Points
    band: Sequence[tuple[float, float, float]] = ()
    dash: bool = False


@dataclass(frozen=True)
class _Axes:
    """From figures to pixels; logarithmic along x where `log`."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False

    def x(self, value: float) -> float:
        """Pixels from the left."""
        a, b, v = self.x0, self.x1, value
        if self.log:
            a, b, v = math.log10(a), math.log10(b), math.log10(max(value, self.x0))
        return _LEFT + (v - a) / ((b - a) or 1) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (min(value, self.y1) - self.y0) / ((self.y1 - self.y0) or 1)
        return _TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM)


def lines_svg(
    lines: Sequence[Line], x_name: str, y_name: str, log: bool = False, top: float = 0.0
) -> str:
    """Lines over a common axis, and their names; what lies above `top` (if given) is cut."""
    points = [p for line in lines for p in line.points]
    low, high = _span([y for _, y in points])
    xs = [x for x, _ in points] or [0.0]
    axes = _Axes(max(min(xs), 1.0) if log else min(xs), max(xs), low, min(high, top or high), log)
    parts = _frame(axes, x_name, y_name)
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        if line.band:
            edge = [(x, hi) for x, _, hi in line.band] + [(x, lo) for x, lo, _ in line.band[::-1]]
            parts.append(f'<polygon points="{_path(axes, edge)}" fill="{colour}" opacity="0.15"/>')
        dash = ' stroke-dasharray="6 4"' if line.dash else ""
        parts.append(f'<polyline points="{_path(axes, line.points)}" fill="none" stroke="{colour}" '
                     f'stroke-width="1.8"{dash}/>')  # fmt: skip
        parts += _legend(i, line.name, colour)
    return _svg(parts, HEIGHT, f"{y_name} over {x_name}")


def points_svg(groups: Mapping[str, Points], x_name: str, y_name: str) -> str:
    """Points of several groups, each with a colour."""
    points = [p for found in groups.values() for p in found]
    axes = _Axes(*_span([x for x, _ in points]), *_span([y for _, y in points]))
    parts = _frame(axes, x_name, y_name)
    for i, (name, found) in enumerate(groups.items()):
        colour = COLOURS[i % len(COLOURS)]
        parts += [
            f'<circle cx="{_n(axes.x(x))}" cy="{_n(axes.y(y))}" r="5" fill="{colour}">'
            f"<title>{escape(f'{name}: {x:g}, {y:g}')}</title></circle>"
            for x, y in found
        ]
        parts += _legend(i, name, colour)
    return _svg(parts, HEIGHT, f"{y_name} over {x_name}")


def bars_svg(rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], unit: str) -> str:
    """For each row a bar per name, one below the other."""
    most = max((v for _, values in rows for v in values), default=0.0) or 1.0
    bar, left = 11, 250
    height = 30 + len(rows) * (len(names) * bar + 6)
    parts, y = [], 24
    for i, name in enumerate(names):
        parts.append(f'<rect x="{left + 150 * i}" y="4" width="11" height="11" '
                     f'fill="{COLOURS[i]}"/>')  # fmt: skip
        parts.append(_text(left + 16 + 150 * i, 14, name))
    for label, values in rows:
        parts.append(_text(left - 8, y + 6 + len(values) * bar / 2, _short(label), "end", label))
        for i, value in enumerate(values):
            width = value / most * (WIDTH - left - 110)
            parts.append(f'<rect x="{left}" y="{y + i * bar}" width="{_n(width)}" '
                         f'height="{bar - 2}" fill="{COLOURS[i]}"/>')  # fmt: skip
            parts.append(_text(left + width + 5, y + i * bar + 9, f"{value:,.4g} {unit}"))
        y += len(names) * bar + 6
    return _svg(parts, height, f"{', '.join(names)} in {unit}")


def _frame(axes: _Axes, x_name: str, y_name: str) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{right - _LEFT}" height="{bottom - _TOP}" '
             'fill="none" stroke="#999"/>']  # fmt: skip
    for i in range(5):
        value = axes.y0 + (axes.y1 - axes.y0) * i / 4
        y = axes.y(value)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{_n(y)}" y2="{_n(y)}" stroke="#eee"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{value:,.4g}", "end"))
        x = axes.x0 + (axes.x1 - axes.x0) * i / 4
        if axes.log:
            x = axes.x0 * (axes.x1 / axes.x0) ** (i / 4)
        parts.append(_text(axes.x(x), bottom + 16, f"{x:,.4g}", "middle"))
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 8, x_name, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="14" y="{_n(middle)}" text-anchor="middle" '
                 f'transform="rotate(-90 14 {_n(middle)})">{escape(y_name)}</text>')  # fmt: skip
    return parts


def _legend(i: int, name: str, colour: str) -> list[str]:
    y = _TOP + 10 + 18 * i
    return [f'<rect x="{WIDTH - _RIGHT + 12}" y="{y - 8}" width="12" height="8" fill="{colour}"/>',
            _text(WIDTH - _RIGHT + 30, y, name)]  # fmt: skip


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_n(height)}" '
        f'width="{WIDTH}" height="{_n(height)}" role="img" font-size="12" '
        f'font-family="Helvetica, Arial, sans-serif"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "start", whole: str = "") -> str:
    more = f"<title>{escape(whole)}</title>" if whole and whole != text else ""
    return (f'<text x="{_n(x)}" y="{_n(y)}" text-anchor={quoteattr(anchor)}>{escape(text)}{more}'
            "</text>")  # fmt: skip


def _path(axes: _Axes, points: Points) -> str:
    return " ".join(f"{_n(axes.x(x))},{_n(axes.y(y))}" for x, y in points)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values take."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.05 * ((high - low) or abs(high) or 1.0)
    return max(0.0, low - room), high + room


def _short(text: str, most: int = 36) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
