"""Picture of the arena over time: one rectangle per buffer, as a self-contained SVG document.

x is the step number, y the offset in bytes; what is stacked in one column lives at the same time.
"""

import colorsys
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from codegen.memory import Buffer
from codegen.regions import ALIGN

# Pixels of the picture; text is placed by estimate, as nothing here can measure a font.
_WIDTH, _PLOT_HEIGHT = 1000, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 20, 84, 46
_FONT, _CHAR = 11, 6.3
_INK, _GRID, _PEAK, _ARENA = "#22303c", "#d9dee3", "#fdf0d5", "#b3261e"
_MIN_TICK_PX = 34
_GOLDEN = 0.618034  # fraction of the circle between hues of neighbours: no two near ones look alike


@dataclass(frozen=True)
class _Scale:
    """Steps and bytes -> pixels; offset 0 lies at the bottom."""

    steps: int
    top_bytes: int

    @property
    def step_px(self) -> float:
        return (_WIDTH - _LEFT - _RIGHT) / self.steps

    def x(self, step: float) -> float:
        return _LEFT + step * self.step_px

    def y(self, offset: float) -> float:
        return _TOP + _PLOT_HEIGHT * (1 - offset / self.top_bytes)


def svg(
    buffers: Sequence[Buffer],
    steps: int,
    arena_bytes: int,
    lower_bound: int,
    names: Sequence[str] = (),
) -> str:
    """The picture as text. `steps` is their number, `names` (optional) what they are called;
    `lower_bound` is the largest live set in bytes. Equal arguments give equal text."""
    steps = max([steps, 1, *(b.last + 1 for b in buffers)])
    top = max([arena_bytes, lower_bound, ALIGN, *(b.offset + b.bytes for b in buffers)])
    scale = _Scale(steps, round(top * 1.03))
    peak = peak_step(buffers)
    colours = _colours(buffers)
    parts = [
        _tag("title", "Arena over time"),
        _tag("rect", width="100%", height="100%", fill="#ffffff"),
        *_axes(scale, names, peak),
        *(_buffer(b, scale, colours[b.name], names) for b in buffers),
        *_lines(scale, arena_bytes, lower_bound),
        *_heading(buffers, arena_bytes, lower_bound, peak),
    ]
    height = _TOP + _PLOT_HEIGHT + _BOTTOM
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        + _tag(
            "svg",
            raw="\n" + "\n".join(parts) + "\n",
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {_WIDTH} {height}",
            width=_WIDTH,
            height=height,
            font_family="Helvetica, Arial, sans-serif",
            font_size=_FONT,
            fill=_INK,
        )
        + "\n"
    )


def peak_step(buffers: Sequence[Buffer]) -> int | None:
    """First step at which the most bytes are live (each buffer rounded up to the alignment)."""
    live = {}
    for step in range(max((b.last for b in buffers), default=-1) + 1):
        live[step] = sum(-(-b.bytes // ALIGN) for b in buffers if b.first <= step <= b.last)
    return max(live, key=live.get) if live else None


def size_text(n: int) -> str:
    """12,345,678 -> 11.8 MiB; below 1 KiB in bytes."""
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"


def _tag(name: str, text: str = "", raw: str = "", **attributes: str | float | None) -> str:
    """One element: `text` and attributes are escaped, `raw` is markup; `_` in names becomes `-`."""
    shown = "".join(
        f" {key.replace('_', '-') if key != 'viewBox' else key}={quoteattr(_number(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    body = raw + escape(_printable(text))
    return f"<{name}{shown}>{body}</{name}>" if body else f"<{name}{shown}/>"


def _number(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _printable(text: str) -> str:
    """XML 1.0 has no form, not even an escaped one, for most control characters."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _colours(buffers: Sequence[Buffer]) -> dict[str, tuple[str, str]]:
    """(fill, edge) by buffer; scratch is grey."""
    out = {}
    for i, b in enumerate(sorted(buffers, key=lambda b: (b.first, b.offset))):
        hue = (0.58 + i * _GOLDEN) % 1
        shades = [(0.82, 0.55), (0.42, 0.45)] if not _scratch(b) else [(0.88, 0.0), (0.5, 0.0)]
        rgb = [colorsys.hls_to_rgb(hue, light, saturation) for light, saturation in shades]
        out[b.name] = tuple("#" + "".join(f"{round(255 * c):02x}" for c in one) for one in rgb)
    return out


def _scratch(b: Buffer) -> bool:
    return b.name.endswith("(scratch)")


def _ticks(top: int) -> list[tuple[int, str]]:
    """Round byte values from 0, at most about ten, and how they are written."""
    unit, name = next(u for u in ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")) if top >= 2 * u[0])
    steps = (unit * n / 4 for k in range(12) for n in (10**k, 2 * 10**k, 4 * 10**k))
    step = next(int(s) for s in steps if s >= 1 and top / s <= 10)
    return [(v, f"{v / unit:g} {name}" if v else "0") for v in range(0, top + 1, step)]


def _axes(scale: _Scale, names: Sequence[str], peak: int | None) -> list[str]:
    bottom, out = scale.y(0), []
    if peak is not None:
        out.append(
            _tag("rect", x=scale.x(peak), y=float(_TOP - 14), width=scale.step_px, fill=_PEAK,
                 height=_PLOT_HEIGHT + 14.0)
        )  # fmt: skip
    for value, text in _ticks(scale.top_bytes):
        y = scale.y(value)
        out.append(
            _tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y,
                 stroke=_INK if not value else _GRID)
        )  # fmt: skip
        out.append(_tag("text", text, x=_LEFT - 8, y=y + 4, text_anchor="end"))
    every = next(n for k in range(9) for n in (10**k, 2 * 10**k, 5 * 10**k)
                 if n * scale.step_px >= _MIN_TICK_PX)  # fmt: skip
    for step in range(0, scale.steps, every):
        title = _tag("title", _step(step, names))
        out.append(
            _tag("text", str(step), raw=title, x=scale.x(step + 0.5), y=bottom + 16,
                 text_anchor="middle")
        )  # fmt: skip
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    out.append(_tag("text", "step", x=middle, y=bottom + 36, text_anchor="middle"))
    y = _TOP + _PLOT_HEIGHT / 2
    out.append(
        _tag("text", "offset in the arena", x=16, y=y, text_anchor="middle",
             transform=f"rotate(-90 16 {_number(y)})")
    )  # fmt: skip
    return out


def _step(step: int, names: Sequence[str]) -> str:
    return f"step {step}" + (f" ({names[step]})" if step < len(names) else "")


def _buffer(b: Buffer, scale: _Scale, colours: tuple[str, str], names: Sequence[str]) -> str:
    x, y = scale.x(b.first), scale.y(b.offset + b.bytes)
    width, height = scale.x(b.last + 1) - x, scale.y(b.offset) - y
    tip = (
        f"{b.name}\n{b.bytes:,} bytes at offset {b.offset:,}\n"
        f"from {_step(b.first, names)} to {_step(b.last, names)}"
    )
    rectangle = _tag(
        "rect", x=x + 0.5, y=y, width=max(width - 1, 0.5), height=max(height, 0.5), rx=2,
        fill=colours[0], stroke=colours[1], stroke_width=0.8,
    )  # fmt: skip
    return _tag("g", raw=_tag("title", tip) + rectangle + _label(b, x, y, width, height))


def _label(b: Buffer, x: float, y: float, width: float, height: float) -> str:
    """Name and size inside the rectangle, upright where it is tall and narrow; "" if too small."""
    upright = width < 9 * _CHAR and height > width
    along, across = (height, width) if upright else (width, height)
    room = int((along - 8) / _CHAR)
    size = size_text(b.bytes)
    if across < _FONT + 3 or room < min(6, len(b.name)):
        return ""
    name = "scratch" if _scratch(b) and len(b.name) > room else b.name
    lines = [f"{name}, {size}"]
    if len(lines[0]) > room:
        lines = [name, size] if across >= 2 * _FONT + 6 and room >= len(size) else [name]
    cx, cy = x + width / 2, y + height / 2
    out = ""
    for i, line in enumerate(lines):
        shown = line if len(line) <= room else f"{line[: room - 1]}…"
        at = cy + 4 + (i - (len(lines) - 1) / 2) * (_FONT + 3)
        turn = f"rotate(-90 {_number(cx)} {_number(cy)})" if upright else None
        out += _tag("text", shown, x=cx, y=at, text_anchor="middle", transform=turn)
    return out


def _lines(scale: _Scale, arena_bytes: int, lower_bound: int) -> list[str]:
    ends = dict(x1=_LEFT, x2=_WIDTH - _RIGHT)
    arena, bound = scale.y(arena_bytes), scale.y(lower_bound)
    return [
        _tag("line", y1=arena, y2=arena, stroke=_ARENA, stroke_width=1.6, **ends),
        _tag("line", y1=bound, y2=bound, stroke=_INK, stroke_width=1.6, stroke_dasharray="5 4",
             **ends),
    ]  # fmt: skip


def _heading(
    buffers: Sequence[Buffer], arena_bytes: int, lower_bound: int, peak: int | None
) -> list[str]:
    """Title and key."""
    count = f"{len(buffers)} buffer{'s' if len(buffers) != 1 else ''}"
    out = [
        _tag("text", f"Arena over time: {count}", x=_LEFT, y=28, font_size=16, font_weight="bold")
    ]
    more = arena_bytes - lower_bound
    excess = f" (+{100 * more / lower_bound:.1f} %)" if more and lower_bound else ""
    keys = (
        (_ARENA, None, f"arena {arena_bytes:,} bytes{excess}"),
        (_INK, "5 4", f"largest live set {lower_bound:,} bytes"),
    )
    x = float(_LEFT)
    for stroke, dash, text in keys:
        out.append(
            _tag("line", x1=x, x2=x + 26, y1=48, y2=48, stroke=stroke, stroke_width=1.6,
                 stroke_dasharray=dash)
        )  # fmt: skip
        out.append(_tag("text", text, x=x + 32, y=52))
        x += 32 + len(text) * _CHAR + 24
    if peak is not None:
        out.append(_tag("rect", x=x, y=40, width=26, height=16, fill=_PEAK, stroke="#e0b96a"))
        out.append(_tag("text", f"peak: step {peak}", x=x + 32, y=52))
    return out
