"""The roofline: bytes that were moved, roofs that follow from a board's data, and the picture."""

import xml.etree.ElementTree as ET

import pytest

from codegen.board import board_names, load_board
from codegen.cycle_model import LINE_BYTES
from codegen.measured import modelled_row
from codegen.roofline import roofline_svg
from codegen.run.virtual.bandwidth import Roofs, roofs
from codegen.run.virtual.counts import NAMED_EVENTS
from codegen.run.virtual.traffic import Moved, traffic
from codegen.toolchain import find_llvm

A57 = load_board("jetson-nano-cpu")
EMULATED = [b for b in map(load_board, board_names()) if b.cycle_model]
SVG = "{http://www.w3.org/2000/svg}"


# ---- bytes ----

# event -> lines (L1D reads, L1D writes, memory reads, memory writes) that one of it moves
MOVES = {
    "load_l2": (1, 0, 0, 0),
    "store_l2": (1, 0, 0, 0),
    "first_load_l2": (1, 0, 0, 0),
    "first_store_l2": (1, 0, 0, 0),
    "load_memory": (1, 0, 1, 0),
    "first_load_memory": (1, 0, 1, 0),
    "store_memory": (0, 0, 0, 0),  # written whole, without being read
    "first_store_memory": (0, 0, 0, 0),
    "write_back_l2": (0, 1, 0, 0),
    "write_back_memory": (0, 0, 0, 1),
    "loads": (0, 0, 0, 0),
    "stores": (0, 0, 0, 0),
    "mispredicted": (0, 0, 0, 0),
}


@pytest.mark.parametrize("event", NAMED_EVENTS)
def test_every_event_moves_its_lines(event):
    l1_read, l1_write, memory_read, memory_write = MOVES[event]
    found = traffic(dict.fromkeys(NAMED_EVENTS, 0) | {event: 3})
    assert found.l1_l2 == Moved(192 * l1_read, 192 * l1_write)
    assert found.l2_memory == Moved(192 * memory_read, 192 * memory_write)


def region(**events: int) -> dict:
    parts = {"core": 500, "branch": 20, "l2": 300, "memory": 180}
    counted = dict.fromkeys(NAMED_EVENTS, 0) | events
    return {"cycles": 1000, "ms": 0.000699, "instructions": 900, "events": counted, **parts}


def test_intensity_and_bound():
    counts = region(load_l2=6, first_load_memory=4, write_back_l2=2)
    row = modelled_row({"macs": 1536}, counts, A57)
    assert row["intensity"] == {"l1_l2": 2 * 1536 / (12 * 64), "l2_memory": 2 * 1536 / (4 * 64)}
    assert row["bound"] == "compute"
    assert row["peak_percent"] == pytest.approx(100 * 1.536 / 4, abs=0.05)
    slow = modelled_row({"macs": 0}, {**counts, "memory": 501}, A57)
    assert slow["bound"] == "memory"
    quiet = modelled_row({"macs": 8}, region(), A57)
    assert quiet["intensity"] == {"l1_l2": None, "l2_memory": None}


# ---- roofs ----


@pytest.mark.parametrize("board", EMULATED, ids=lambda b: b.name)
def test_roofs_follow_from_the_penalties(board):
    model = board.cycle_model
    llvm = find_llvm("llvm-mca")
    if not model.core.in_order and not llvm:
        pytest.skip("no llvm-mca on this machine")
    found = roofs(model, str(llvm))
    assert found.flops == 2 * model.core.macs_per_cycle
    # A line is loaded with four instructions: no core here starts more than two of them a cycle.
    load = LINE_BYTES / found.l2 - model.l2.first_load
    assert 2 <= load <= 9
    assert LINE_BYTES / found.memory == pytest.approx(max(load, model.memory.line))


# ---- the picture ----


def layer(name: str, macs: int, cycles: int, bound: str, read: int = 4096) -> dict:
    moved = {"l1_l2": {"read": read, "write": 64}, "l2_memory": {"read": 0, "write": 0}}
    return {
        "name": name, "kernel": f"k_{name}", "macs": macs, "cycles": cycles, "ms": cycles / 1.43e6,
        "gflops": 2 * macs / cycles * 1.43, "peak_percent": 100 * macs / cycles / 4,
        "bytes": moved, "bound": bound,
    }  # fmt: skip


LAYERS = [
    layer("conv<1>", 30_000, 10_000, "compute"),
    layer("block/dw", 10_000, 9_000, "L2", 40_000),
    layer("fc", 1_000, 900, "memory", 30_000),
    layer("relu & co", 0, 100, "branch"),
    layer("tiny", 10, 10, "compute", 0),  # moves nothing
]
RESULT = {
    "model": "net <&>.onnx", "board": "b", "clock_hz": 1_430_000_000, "cycles": 20_010,
    "ms": 0.014, "gflops": 5.86, "layers": LAYERS,
}  # fmt: skip
ROOFS = Roofs(flops=8.0, l2=10.0, memory=4.0)


@pytest.fixture(scope="module")
def picture() -> ET.Element:
    return ET.fromstring(roofline_svg(RESULT, ROOFS))


def dots(picture: ET.Element) -> dict[str, ET.Element]:
    named = {c: c.find(f"{SVG}title") for c in picture.iter(f"{SVG}circle")}
    return {t.text.splitlines()[0]: c for c, t in named.items() if t is not None}


def texts(picture: ET.Element) -> list[str]:
    return [t.text for t in picture.iter(f"{SVG}text")]


def test_one_dot_per_layer_with_the_area_of_its_share(picture):
    found = dots(picture)
    assert set(found) == {x["name"] for x in LAYERS}
    area = {n: float(c.get("r")) ** 2 for n, c in found.items()}
    assert area["conv<1>"] / area["block/dw"] == pytest.approx(10 / 9, rel=0.02)
    assert area["conv<1>"] / area["fc"] == pytest.approx(10 / 0.9, rel=0.05)
    assert found["tiny"].find(f"{SVG}title").text.startswith("tiny\nk_tiny\n0.000 ms, 0.0% of")


def test_places_in_the_plot(picture):
    """Right is more intensity, up is faster; no layer lies above the peak."""
    found = dots(picture)
    x, y = ({n: float(c.get(k)) for n, c in found.items()} for k in ("cx", "cy"))
    assert x["tiny"] > x["conv<1>"] > x["block/dw"] > x["fc"]
    assert y["conv<1>"] < y["block/dw"] == pytest.approx(y["fc"], abs=0.5)
    assert y["relu & co"] > max(v for n, v in y.items() if n != "relu & co")
    roofs = [e for e in picture.iter(f"{SVG}line") if e.get("class") == "roof"]
    peak = min(float(e.get("y2")) for e in roofs)
    assert all(v > peak for v in y.values())
    # The memory roof lies below that of L2: it meets the peak farther to the right.
    _, l2, memory = roofs
    assert float(l2.get("x2")) < float(memory.get("x2"))
    assert float(l2.get("y2")) == float(memory.get("y2")) == peak


def test_words_in_the_picture(picture):
    said = texts(picture)
    assert "multiply-adds: 11.4 GFLOP/s" in said
    assert "L2: 14.3 GB/s" in said
    assert "memory: 5.72 GB/s" in said
    assert "net <&>.onnx on b" in said
    assert {"compute (50%)", "L2 (45%)", "memory (4%)", "branch (0%)"} <= set(said)
    assert {"conv<1>", "block/dw"} <= set(said)  # large enough for a name
    assert "0.5% of the time" in said  # without multiply-adds


def test_dark_readers_get_dark_paper():
    text = roofline_svg(RESULT, ROOFS)
    assert "@media (prefers-color-scheme: dark)" in text
    assert text == roofline_svg(RESULT, ROOFS)


def test_labels_do_not_cover_each_other():
    """Thirty layers at one place: those that find no room go without a name."""
    crowd = [layer(f"a_rather_long_layer_name_{i}", 30_000, 10_000, "compute") for i in range(30)]
    crowded = {**RESULT, "layers": crowd, "cycles": 300_000}
    names = [
        (float(t.get("x")), float(t.get("y")))
        for t in ET.fromstring(roofline_svg(crowded, ROOFS)).iter(f"{SVG}text")
        if t.get("class") == "name"
    ]
    assert names
    assert all(
        abs(a[0] - b[0]) > 100 or abs(a[1] - b[1]) >= 11
        for i, a in enumerate(names)
        for b in names[:i]
    )


@pytest.mark.parametrize("layers", [[], [layer("relu", 0, 100, "compute")]])
def test_networks_without_multiply_adds(layers):
    found = ET.fromstring(roofline_svg({**RESULT, "layers": layers, "cycles": 100}, ROOFS))
    assert len(dots(found)) == len(layers)
