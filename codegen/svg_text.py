"""Lines, text and room for labels in an SVG picture. Pixels; the width of text is an estimate, as
nothing here can measure a font."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

CHAR, FONT = 6.2, 11  # mean width of a character, and height
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Disc:
    """Something round that may get a label."""

    x: float
    y: float
    radius: float


def box(x: float, y: float, width: float, height: float) -> Box:
    """Around a middle."""
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def overlap(a: Box, b: Box) -> bool:
    """Do they share more than an edge?"""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def places(d: Disc, width: float) -> list[tuple[float, float]]:
    """Middles of a label of that width, the best first."""
    out = [(d.x, d.y)] if width < 1.8 * d.radius else []
    for distance in (4, 14, 28, 44, 62):
        for turn in (0, 180, 90, 270, 45, 135, 225, 315):
            across, up = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            reach = d.radius + distance
            out.append((d.x + across * (reach + width / 2), d.y - up * (reach + FONT / 2)))
    return out


def leader(d: Disc, x: float, y: float, width: float) -> list[str]:
    """A line from the dot's edge to a label that stands away from it."""
    near = min(max(d.x, x - width / 2), x + width / 2)
    length = math.hypot(near - d.x, y - d.y)
    if length < d.radius + 12:
        return []
    part = d.radius / length
    return [line(d.x + part * (near - d.x), d.y + part * (y - d.y), near, y, "axis")]


def number(value: float) -> str:
    """A tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def line(
    x1: float, y1: float, x2: float, y2: float, kind: str, width: float = 1, dash: str | None = None
) -> str:
    """`kind` is a class of the picture's style."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line class="{kind}" x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" '
        f'y2="{number(y2)}" stroke-width="{width:g}"{dashed}/>'
    )


def text_at(
    text: str,
    x: float,
    y: float,
    anchor: str = "start",
    kind: str = "ink",
    size: int = FONT,
    weight: str = "normal",
    turn: float = 0.0,
    shift: float = 0.0,
) -> str:
    """`turn` degrees around its place, and `shift` pixels down in the turned frame."""
    turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
    more = f' font-size="{size}" font-weight="{weight}"' if size != FONT else ""
    return (
        f'<text class="{kind}" x="{number(x)}" y="{number(y + shift)}" '
        f"text-anchor={quoteattr(anchor)}{more}{turned}>{escape(text)}</text>"
    )
