"""Histograms and what each method makes of them; the file of ranges."""

import json
from dataclasses import replace

import numpy as np
import pytest

from codegen.calibration.corrections import pack
from codegen.calibration.histogram import HALF, Histogram
from codegen.calibration.methods import (
    all_ranges,
    least_divergence,
    least_error,
    percentiles,
    quantisation_error,
)
from codegen.calibration.record import (
    METHODS,
    Calibration,
    DataRecord,
    Range,
    check_calibration,
    read_calibration,
)
from codegen.errors import CodegenError


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def counted(*arrays):
    histogram = Histogram()
    for a in arrays:
        histogram = histogram.add(np.asarray(a, np.float32))
    return histogram


# --- histograms ---


def test_minimum_and_maximum_are_exact(rng):
    parts = [rng.standard_normal((3, 50)).astype(np.float32) * 10.0**k for k in (-3, 2, 0, 5, -1)]
    histogram, everything = counted(*parts), np.concatenate([p.reshape(-1) for p in parts])
    assert histogram.low == everything.min()
    assert histogram.high == everything.max()
    assert histogram.total == everything.size


@pytest.mark.parametrize("order", [1, -1])
def test_growing_counts_as_if_the_range_had_been_known(rng, order):
    parts = [rng.standard_normal(1000) * s for s in (0.01, 0.3, 1, 7, 500)][::order]
    grown = counted(*parts)
    everything = np.concatenate(parts).astype(np.float32)
    edges = np.arange(-HALF, HALF + 1) * grown.width
    assert np.log2(grown.limit) == np.ceil(np.log2(np.abs(everything).max()))
    assert np.array_equal(grown.counts, np.histogram(everything, edges)[0])


def test_growth_by_more_than_the_bins():
    histogram = counted([1e-9, -1e-9, 2e-9], [1e9])
    assert histogram.counts[HALF] == 2
    assert histogram.counts[HALF - 1] == 1
    assert histogram.total == 4


@pytest.mark.parametrize("values", [[3.4e38, -3.4e38], [1e-45, -1e-45], [1.0, -1.0], [0.0, 1e-40]])
def test_extreme_magnitudes(values):
    histogram = counted(values)
    assert histogram.total == 2
    assert histogram.limit >= max(values)
    for found in all_ranges(histogram, 99.99).values():
        assert np.isfinite([found.low, found.high]).all()


def test_zeros_are_counted_apart():
    histogram = counted([0.0, -0.0, 0.0], [0.0, 5.0])
    assert (histogram.zeros, int(histogram.counts.sum())) == (4, 1)


def test_nothing_but_zeros():
    assert set(all_ranges(counted(np.zeros(9)), 99.99).values()) == {Range(0.0, 0.0)}
    assert counted([]).total == 0


# --- methods ---


@pytest.mark.parametrize("make", [
    lambda rng: rng.standard_normal(20000) * 3,
    lambda rng: np.maximum(rng.standard_normal(20000), 0),
    lambda rng: -rng.random(5000) - 1,
    lambda rng: rng.integers(-3, 9, 999),
])  # fmt: skip
@pytest.mark.parametrize("p", [99.99, 99.0, 80.0, 100.0])
def test_percentiles_are_numpys_to_a_bin(make, p, rng):
    values = make(rng).astype(np.float32)
    histogram = counted(*np.array_split(values, 3))
    found = percentiles(histogram, p)
    spread = [np.percentile(values, q, method=m) for q in (100 - p, p) for m in ("lower", "higher")]
    low, high = spread[:2], spread[2:]
    width = histogram.width
    assert min(low[0], 0) - width <= found.low <= min(low[1], 0) + width
    assert max(high[0], 0) - width <= found.high <= max(high[1], 0) + width


@pytest.mark.parametrize("make", [
    lambda rng: rng.standard_normal(30000),
    lambda rng: rng.laplace(0, 1, 30000),
    lambda rng: np.maximum(rng.laplace(0, 1, 30000), 0),
    lambda rng: np.concatenate([rng.standard_normal(30000), [40, -3]]),
    lambda rng: np.clip(rng.standard_normal(30000) * 4, 0, 6),
])  # fmt: skip
def test_least_error_beats_a_grid_of_ranges(make, rng):
    histogram = counted(make(rng))
    found = least_error(histogram)
    least = quantisation_error(histogram, found.low, found.high)
    shares = np.linspace(0.05, 1, 40)
    grid = [quantisation_error(histogram, histogram.low * a if histogram.low < 0 else 0.0,
                               histogram.high * b) for a in shares for b in shares]  # fmt: skip
    assert least <= min(grid) * 1.03
    assert least <= quantisation_error(histogram, min(histogram.low, 0), histogram.high)


def test_error_of_a_histogram_is_that_of_its_data(rng):
    values = rng.standard_normal(100_000).astype(np.float32)
    histogram = counted(values)
    low, high = -2.5, 3.0
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    back = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    true = np.square(back - values).mean()
    assert quantisation_error(histogram, low, high) == pytest.approx(true, rel=0.02)


def test_least_error_of_a_gaussian_is_where_theory_puts_it(rng):
    """Banner et al. 2019: 3.92 standard deviations for 8 bits, asymptotically."""
    found = least_error(counted(rng.standard_normal(1_000_000)))
    assert 3.5 < -found.low < 4.4
    assert 3.5 < found.high < 4.4


def test_entropy_cuts_a_long_tail_and_keeps_a_flat_distribution(rng):
    flat = counted(rng.uniform(-1, 1, 200_000))
    found = least_divergence(flat)
    assert found.low == pytest.approx(-1, abs=0.02)
    assert found.high == pytest.approx(1, abs=0.02)
    tailed = counted(rng.standard_normal(200_000), [60.0, -45.0])
    found = least_divergence(tailed)
    assert 2.5 < found.high < 15
    assert 2.5 < -found.low < 15
    cut = least_divergence(counted(np.abs(rng.standard_normal(200_000)), [60.0]))
    assert cut.low == 0
    assert 2.5 < cut.high < 15


def test_entropy_of_exactly_representable_values_loses_nothing():
    """A value per quantised level: the distribution survives, D = 0."""
    found = least_divergence(counted(np.repeat(np.arange(-127, 128), 5)))
    assert (found.low, found.high) == (-127, 127)


def test_every_range_contains_zero_and_no_more_than_was_seen(rng):
    for values in (rng.random(500) + 4, -rng.random(500) - 4, rng.standard_normal(500)):
        for method, found in all_ranges(counted(values), 99.9).items():
            assert min(np.float32(values.min()), 0) <= found.low <= 0, method
            assert 0 <= found.high <= max(np.float32(values.max()), 0), method


# --- the file ---

PACKED = pack(np.array([0, -1, 1, 7]))


def a_calibration():
    ranges = {m: Range.around(-0.1 * (i + 1), 1 / 3) for i, m in enumerate(METHODS)}
    data = DataRecord(("a.npz",), 9, 0, None, "scale=1/255", "ab" * 32)
    tensors, means = {"x": ranges, 'y"/1': ranges}, {"x": (0.5, -1.25)}
    return Calibration("cd" * 32, "mse", 99.99, data, tensors, {"z": "NaN"}, {}, means,
                       {"n": {4: PACKED, 7: pack(np.zeros(0))}})  # fmt: skip


def test_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(a_calibration().to_json())
    read = read_calibration(path)
    assert read == a_calibration()
    assert read.to_json() == path.read_text()
    assert np.float32(read.range_of("x").high) == np.float32(1 / 3)
    assert read.range_of("x") == read.range_of("x", "mse") != read.range_of("x", "minmax")
    empty = replace(a_calibration(), tensors={}, not_calibrated={})
    path.write_text(empty.to_json())
    assert read_calibration(path) == empty


def test_calibration_of_another_model_is_refused():
    check_calibration(a_calibration(), "cd" * 32)
    with pytest.raises(CodegenError, match=r"c\.json: made for model cdcd.*this model is eeee"):
        check_calibration(a_calibration(), "ee" * 32, "c.json")


def _with(**changes):
    raw = json.loads(a_calibration().to_json())
    for key, value in changes.items():
        if value is None:
            del raw[key]
        else:
            raw[key] = value
    return raw


@pytest.mark.parametrize(("raw", "said"), [
    ([], "schema 'list'"),
    (_with(schema=9), "schema 9"),
    (_with(extra=1), "unknown key 'extra'"),
    (_with(model_sha256=None), "no key 'model_sha256'"),
    (_with(method="best"), "unknown method 'best'"),
    (_with(percentile=True), "percentile is True"),
    (_with(tensors=[]), "tensors is"),
    (_with(sensitivity=[]), "sensitivity is"),
    (_with(sensitivity={"n": {"9": 0.1}}), "sensitivity of node 'n'"),
    (_with(sensitivity={"n": {"8": -0.1}}), "sensitivity of node 'n'"),
    (_with(means={"x": [0.5, float("nan")]}), "means of tensor 'x'"),
    (_with(means={"x": 0.5}), "means of tensor 'x'"),
    (_with(rounding=[]), "rounding is"),
    (_with(rounding={"n": 5}), "rounding of node 'n' is broken"),
    (_with(rounding={"n": {"9": PACKED}}), "rounding of node 'n' is broken"),
    (_with(rounding={"n": {"4": 5}}), "rounding of node 'n' is broken"),
    (_with(rounding={"n": {"4": "\u00fc" + PACKED}}), "rounding of node 'n' is broken"),
    (_with(rounding={"n": {"4": PACKED[:-8]}}), "rounding of node 'n' is broken"),
    (_with(data={"samples": 1}), "no key 'data.files'"),
    (_with(tensors={"x": {"minmax": [0, 1]}}), "entry of tensor 'x'"),
    (_with(tensors={"x": dict.fromkeys(METHODS, [1, 2])}), "low <= 0 <= high"),
    (_with(tensors={"x": dict.fromkeys(METHODS, [0, float("inf")])}), "entry of tensor 'x'"),
    (_with(tensors={"x": dict.fromkeys(METHODS, [0, float("nan")])}), "entry of tensor 'x'"),
    (_with(tensors={"x": dict.fromkeys(METHODS, [0, 10**400])}), "entry of tensor 'x'"),
    (_with(tensors={"x": dict.fromkeys(METHODS, [0, 1e300])}), r"float32 \[low, high\]"),
])  # fmt: skip
def test_broken_files(raw, said, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(CodegenError, match=said):
        read_calibration(path)


def test_unreadable_files(tmp_path):
    with pytest.raises(CodegenError, match="no such file"):
        read_calibration(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(CodegenError, match="not JSON"):
        read_calibration(tmp_path / "text.json")
