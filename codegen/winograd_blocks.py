"""Sizes of a Winograd convolution (templates/conv2d/winograd.j2): tiles, phases, and how many tiles
and panels of weights are worked on at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codegen.tile_order import tile_order
from codegen.winograd import Axis, Points, axis
from codegen.winograd_lines import input_lines, output_lines

# Channels x tiles that a group must have, so that multiply-adds do not wait for one another.
_SUMS = 48
# A plane of tiles and a panel of weights that are used again and again should fit L1 (32 KiB).
_L1_BYTES = 20 << 10
_LINE = 64
# Cycles that a cache line costs, roughly: streamed from memory beside products, which hide all but
# the beginnings of pages; fetched again from L2; written to memory and read back out of order.
_OUT_OF_ORDER = {"streamed": 8, "again": 8, "spilled": 80}
_IN_ORDER = {"streamed": 5, "again": 3, "spilled": 100}
# Channels that are transformed together.
CHANNELS = 16
# Channels of one product, out of order and in order: of more, a panel that streams through L1
# drives out rows, whose misses then take the prefetcher's streams from it.
_DEEP = (256, 128)


@dataclass(frozen=True)
class Traffic:
    """A layer as the kernel sees it: `weights` bytes in all, bytes per tile of the transformed
    `inputs`, of the `products` and of the `outputs`, `planes` of inputs and bytes of one `panel`
    of weights for one of them."""

    tiles: int
    panels: int
    planes: int
    weights: int
    inputs: int
    products: int
    outputs: int
    panel: int

    def lines(self, block: int, together: int, l2: int) -> dict[str, int]:
        """Cache lines that move when `block` tiles are multiplied with `together` panels at a time:
        weights `streamed` from memory, what comes from L2 `again`, what is `spilled` to memory.
        What is used again before `l2` bytes have passed is still in L2."""
        passes, rounds = -(-self.tiles // block), -(-self.panels // together)
        v = block * self.inputs
        z, w = (x * together // self.panels for x in (block * self.products, self.weights))
        y = (rounds - 1) * block * self.outputs  # a round writes parts of their lines
        plane_stays = v // self.planes + self.panel <= _L1_BYTES
        again = passes * ((rounds if plane_stays else self.panels) * v + y)
        resident = self.weights + v + z <= l2
        return {
            "streamed": (1 if resident else passes) * self.weights // _LINE,
            "again": (again + resident * (passes - 1) * self.weights) // _LINE,
            "spilled": passes * rounds * (v + z) // _LINE * (v + z + w > l2),
        }


def axes(d: Mapping[str, Any], p: Mapping[str, Any]) -> tuple[Axis, Axis, bool]:
    """Down, across, and whether the phases of a stride are joined: all channels of a pixel and its
    neighbours in one vector of patches."""
    joined = d["sh"] * d["sw"] > 1 and d["c"] * d["sh"] * d["sw"] <= CHANNELS
    y = axis(p["f"], d["kh"], d["sh"], joined)
    return y, axis(p.get("fx", p["f"]), d["kw"], d["sw"], joined), joined


def winograd_blocks(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes for winograd.j2: tiles per group (`rows`) and per block, weight panels used together,
    the stride of planes in scratch (floats, an odd number of cache lines, so that planes do not
    fall on the same sets). p["l2_kib"]: how much of L2 may be counted on. A part of a layer uses as
    many panels together as the weights of the whole were packed for."""
    y, x, joined = axes(d, p)
    nr, positions = p["nr"], y.e * x.e
    ty, tx = -(-d["oh"] // y.f), -(-d["ow"] // x.f)
    tiles, panels = d["n"] * ty * tx, -(-d["m"] // nr)
    channels = d["c"] * (y.stride * x.stride if joined else 1)
    depth, chunks = _depth(-(-channels // 4) * 4, _DEEP["last" in p])
    phases = _phases(y, x, joined, chunks)
    parts = [
        chunks * sum(i < len(phase["plane"]) and j < len(phase["plane"][0]) for phase in phases)
        for i in range(y.e)
        for j in range(x.e)
    ]
    planes = sum(parts)
    rows = _group(tiles, p["mr"], nr, 4 if "last" in p else 0)
    panel = 4 * depth * nr
    traffic = Traffic(
        tiles,
        panels,
        planes,
        weights=planes * panels * panel,
        inputs=4 * planes * depth,
        products=4 * positions * panels * nr,
        outputs=4 * y.f * x.f * d["m"],
        panel=panel,
    )
    prices = _IN_ORDER if "last" in p else _OUT_OF_ORDER

    def price(block: int, together: int) -> tuple[int, int]:
        lines = traffic.lines(block, together, p["l2_kib"] << 10)
        return sum(prices[k] * n for k, n in lines.items()), block * (depth + together * nr)

    choices = _choices(tiles, panels, rows, d.get("panels", 0))
    block, together = min(choices, key=lambda choice: price(*choice))
    v_plane = odd_lines(rows * depth)
    groups = -(-block // rows)
    return {
        "fy": y.f,
        "fx": x.f,
        "ey": y.e,
        "ex": x.e,
        "inputs": {
            n: input_lines(*n) for phase in phases for n in (phase["down"], phase["across"])
        },
        "outputs": {(a.f, a.e): output_lines(a) for a in (y, x)},
        "one": y.transforms.has_one and x.transforms.has_one,
        "joined": joined,
        "phases": phases,
        "planes": planes,
        "parts_at": parts,
        "ty": ty,
        "tx": tx,
        "tiles": tiles,
        "rows": rows,
        "block": block,
        "groups_in_block": groups,
        "depth": depth,
        "chunks": chunks,
        "panels": together,
        "width": together * nr,
        "v_plane": v_plane,
        "traffic": traffic,
        "ragged": int(bool(d["oh"] % y.f or d["ow"] % x.f or d["m"] % 4)),
        "scratch_floats": groups * planes * v_plane + positions * block * together * nr,
    }


def _depth(channels: int, most: int) -> tuple[int, int]:
    """Channels as equal chunks (size, number): whole vectors of patches, where that goes."""
    sizes = (k for k in range(most, 63, -CHANNELS) if channels % k == 0)
    size = channels if channels <= most else next(sizes, channels)
    return size, channels // size


def _phases(y: Axis, x: Axis, joined: bool, chunks: int) -> list[dict[str, Any]]:
    """The phases (`y`, `x`) with their transforms `down` and `across` (finite points, infinity) and
    the first planes of their positions [row][column]. Planes lie in order of positions, those of
    all phases at a position together, one for each chunk of channels."""
    at = [(0, 0)] if joined else [(i, j) for i in range(y.stride) for j in range(x.stride)]
    out = [
        {"y": i, "x": j, "down": _points(y, i), "across": _points(x, j),
         "plane": [[0] * x.positions(j) for _ in range(y.positions(i))]}
        for i, j in at
    ]  # fmt: skip
    plane = 0
    for p in range(y.e):
        for q in range(x.e):
            for phase in out:
                if p < len(phase["plane"]) and q < len(phase["plane"][0]):
                    phase["plane"][p][q] = plane
                    plane += chunks
    return out


def _points(axis: Axis, phase: int) -> tuple[Points, bool]:
    finite = axis.transforms.points
    return finite, axis.positions(phase) > len(finite)


def _group(tiles: int, mr: int, nr: int, loads: int) -> int:
    """Tiles per group, at most mr, such that the last group is not much smaller than the others: a
    group of few sums waits for each of them. `loads`: how many rows could be multiplied in the
    time in which a panel is loaded, where that takes time of its own."""
    least = -(-_SUMS // nr)

    def time(rows: int) -> tuple[int, int]:
        groups, rest = divmod(tiles, rows)
        last = max(rest, least) + loads if rest else 0
        return groups * (max(rows, least) + loads) + last, -rows

    return min(range(1, min(mr, tiles) + 1), key=time)


def _choices(tiles: int, panels: int, rows: int, packed: int) -> Iterator[tuple[int, int]]:
    """(tiles per block, panels used together) worth comparing; with `packed` only so many."""
    counts = [packed] if packed else [-(-panels // rounds) for rounds in range(1, panels + 1)]
    groups = -(-tiles // rows)
    for passes in range(1, groups + 1):
        block = min(-(-groups // passes) * rows, tiles)
        yield from dict.fromkeys((block, together) for together in counts)


def odd_lines(count: int, size: int = 4) -> int:
    """Elements of so many bytes, rounded up to an odd number of cache lines."""
    line = _LINE // size
    return (-(-count // line) | 1) * line


def inorder_winograd(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the order of instructions of each tile of products (rows, vectors)."""
    sizes = winograd_blocks(d, p)
    full, rest = divmod(d["m"], p["nr"])
    heights = {sizes["rows"], sizes["tiles"] % sizes["rows"]} - {0}
    widths = {v for v in (p["nr"] // 4 if full else 0, -(-rest // 4)) if v}
    return {**sizes, "orders": {(h, v): tile_order(h, v) for h in heights for v in widths}}
