"""The chart of docs/BENCHMARKS.md: grouped bars, one panel for each core."""

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = {"ncnn": "#4e79a7", "mnn": "#f28e2b", "litert": "#59a14f", "ort": "#b07aa1",
           "blas": "#9c755f", "emx": "#bab0ac", "onnx2c": "#86bcb6"}  # fmt: skip
_PANEL, _TOP, _LEFT, _GAP = 190, 64, 56, 54  # pixels
_BAR, _GROUP, _LABEL = 11, 14, 122


def svg(
    speeds: Mapping[tuple[str, str, str], float],
    models: Sequence[str],
    cores: Mapping[str, str],
    names: Mapping[str, str],
) -> str:
    """`speeds`: (core, model, engine) -> multiple of our speed, which is the line at 1. Models from
    left to right, cores from top to bottom."""
    engines = [e for e in COLOURS if any(k[2] == e for k in speeds)]
    group = _group(engines)
    width = _LEFT + max(len(models), 1) * group + 24
    width = max(width, _LEFT + 150 * len(engines), 640)
    top = max([1.2, *speeds.values()]) * 1.08
    height = _TOP + len(cores) * (_PANEL + _GAP) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">'
        "Speed as a multiple of codegen's (the line at 1); higher is faster</text>",
    ]
    for i, engine in enumerate(engines):
        x = _LEFT + i * 150
        out.append(f'<rect x="{x}" y="34" width="11" height="11" fill="{COLOURS[engine]}"/>')
        out.append(f'<text x="{x + 16}" y="44">{escape(names[engine])}</text>')
    for i, (core, title) in enumerate(cores.items()):
        base = _TOP + 24 + i * (_PANEL + _GAP) + _PANEL - 24
        out += _panel(speeds, core, title, models, engines, base, width, top)
    return "\n".join([*out, "</svg>"]) + "\n"


def _group(engines: Sequence[str]) -> int:
    """Width of the bars and the name of one network."""
    return max(len(engines) * _BAR + _GROUP, _LABEL)


def _panel(
    speeds: Mapping[tuple[str, str, str], float], core: str, title: str, models: Sequence[str],
    engines: Sequence[str], base: float, width: float, top: float,
) -> list[str]:  # fmt: skip
    scale = (_PANEL - 30) / top
    out = [f'<text x="{_LEFT}" y="{base - _PANEL + 22}" font-weight="bold">{escape(title)}</text>']
    for tick in (0, 0.5, 1, 1.5, 2, 2.5, 3):
        y = base - tick * scale
        if tick <= top:
            strong = ' stroke="#d62728" stroke-width="1.5"' if tick == 1 else ' stroke="#dddddd"'
            out.append(f'<line x1="{_LEFT}" x2="{width - 16}" y1="{y:.1f}" y2="{y:.1f}"{strong}/>')
            out.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    group = _group(engines)
    for m, model in enumerate(models):
        x = _LEFT + 8 + m * group
        for e, engine in enumerate(engines):
            speed = speeds.get((core, model, engine))
            if speed is not None:
                tall = speed * scale
                out.append(
                    f'<rect x="{x + e * _BAR}" y="{base - tall:.1f}" width="{_BAR - 1}" '
                    f'height="{tall:.1f}" fill="{COLOURS[engine]}"><title>{escape(model)}, '
                    f"{escape(engine)}: {speed:.2f}</title></rect>"
                )
        short = escape(model.removeprefix("mlperf_"))
        middle = x + len(engines) * _BAR / 2
        out.append(f'<text x="{middle:.1f}" y="{base + 15}" text-anchor="middle" '
                   f'font-size="10">{short}</text>')  # fmt: skip
    return out
