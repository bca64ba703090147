"""The picture of the arena: well-formed, complete, and the same for the same input."""

import xml.etree.ElementTree as ET

import pytest

from codegen.memory import Buffer
from codegen.memory_map import _ticks, peak_step, size_text, svg

NS = "{http://www.w3.org/2000/svg}"
BUFFERS = (
    Buffer("input@nhwc", 4096, 0, 1, 0),
    Buffer("conv (scratch)", 1024, 1, 1, 12288),
    Buffer("conv", 8192, 1, 2, 4096),
    Buffer("pool", 64, 2, 3, 0),
)


def _rectangles(text: str) -> dict[str, dict[str, str]]:
    """Attributes of a buffer's rectangle by its tooltip's first line."""
    out = {}
    for group in ET.fromstring(text.encode()).iter(f"{NS}g"):
        title = group.find(f"{NS}title").text
        out[title.splitlines()[0]] = group.find(f"{NS}rect").attrib
    return out


def _texts(text: str) -> list[str]:
    return [t.text for t in ET.fromstring(text.encode()).iter(f"{NS}text") if t.text]


def test_one_rectangle_per_buffer_where_it_lives():
    found = _rectangles(svg(BUFFERS, 4, 13312, 13312))
    assert set(found) == {b.name for b in BUFFERS}
    x, y, width, height = (
        {n: float(r[key]) for n, r in found.items()} for key in ("x", "y", "width", "height")
    )
    assert x["conv"] == x["conv (scratch)"] > x["input@nhwc"]
    assert width["conv"] == pytest.approx(2 * width["conv (scratch)"] + 1, abs=0.1)
    assert height["conv"] == pytest.approx(2 * height["input@nhwc"], rel=0.01)
    assert y["conv"] + height["conv"] == pytest.approx(y["input@nhwc"], abs=0.1)
    assert len({r["fill"] for r in found.values()}) == len(BUFFERS)


def test_labels_and_key():
    texts = _texts(svg(BUFFERS, 4, 14000, 13312))
    assert "conv, 8.0 KiB" in texts
    assert "arena 14,000 bytes (+5.2 %)" in texts
    assert "largest live set 13,312 bytes" in texts
    assert "peak: step 1" in texts
    assert "5 KiB" in texts


def test_names_are_escaped_and_shown_in_tooltips():
    name = 'a<b>&"c\x00'
    text = svg([Buffer(name, 640, 0, 0, 0)], 1, 640, 640, ["s<&>\x07"])
    assert list(_rectangles(text)) == ['a<b>&"c\ufffd']
    assert "(s&lt;&amp;&gt;\ufffd)" in text


def test_an_empty_arena_is_still_a_picture():
    text = svg([], 0, 0, 0)
    assert "Arena over time: 0 buffers" in _texts(text)
    assert peak_step([]) is None


def test_many_steps_stay_inside_the_frame():
    many = [Buffer(f"tensor number {i}", 64 * (i % 7 + 1), i, i + 1, 0) for i in range(3000)]
    text = svg(many, 3001, 448, 448)
    assert max(float(r["x"]) + float(r["width"]) for r in _rectangles(text).values()) <= 1000
    assert not any(t.startswith("tensor") for t in _texts(text))


def test_narrow_and_tall_is_written_upright():
    buffers = [Buffer(f"layer{i}", 1 << 20, i, i, 0) for i in range(40)]
    root = ET.fromstring(svg(buffers, 40, 1 << 20, 1 << 20).encode())
    labels = [t for t in root.iter(f"{NS}text") if (t.text or "").startswith("layer")]
    assert len(labels) == 40
    assert all("rotate(-90" in t.get("transform", "") for t in labels)


def test_equal_input_equal_text():
    assert svg(BUFFERS, 4, 13312, 13312) == svg(list(BUFFERS), 4, 13312, 13312)


def test_peak_is_where_most_is_live():
    assert peak_step(BUFFERS) == 1


@pytest.mark.parametrize("top", [64, 1000, 2047, 2048, 49000, 10**6, 10**7, 10**9, 10**11])
def test_ticks_are_few_and_round(top):
    found = _ticks(top)
    assert 3 <= len(found) <= 11
    assert found[0] == (0, "0")
    assert all(len(text) <= 10 for _, text in found)


def test_size_text():
    assert [size_text(n) for n in (0, 1023, 1024, 5 << 19)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "2.5 MiB",
    ]
