"""What outputs lose by one layer in int8: against doing it the long way, and through the files."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from codegen.calibration.cuts import Cuts
from codegen.calibration.record import read_calibration
from codegen.calibration.sensitivity import sensitivities
from codegen.interpret import evaluate, interpret
from codegen.passes.quantise import quantise
from codegen.pipeline import load_graph
from codegen.reference import random_inputs
from codegen.resources import examples_dir
from codegen.types import DType
from codegen.verbs.calibrate import calibrate

KWS = examples_dir() / "models" / "mlperf_kws_dscnn.onnx"
GRAPH = load_graph(KWS)
SAMPLES = [random_inputs(GRAPH, seed) for seed in range(3)]


def spans() -> dict[str, tuple[float, float]]:
    out: dict[str, tuple[float, float]] = {}
    for inputs in SAMPLES:
        for name, value in evaluate(GRAPH, inputs).items():
            if name not in GRAPH.constants and GRAPH.tensors[name].dtype == DType.F32:
                low, high = out.get(name, (0.0, 0.0))
                out[name] = min(low, float(value.min())), max(high, float(value.max()))
    return out


def test_losses_are_those_of_the_whole_network_with_one_layer_in_int8():
    at = spans()
    found = sensitivities(GRAPH, at, SAMPLES[:2], (8, 4))
    convs = [n.name for n in GRAPH.nodes if n.op in ("Conv", "Dense")]
    pools = [n.name for n in GRAPH.nodes if n.op == "AveragePool"]
    assert set(found) == {*convs, *pools}
    assert pools
    for name in (*convs[:2], *convs[-1:], *pools):
        for bits in (8, 4) if name in convs else (8,):
            made = quantise(GRAPH, at, lambda *_: True, {name: bits})
            losses = []
            for inputs in SAMPLES[:2]:
                y, ref = (interpret(g, inputs)["output"].astype(float) for g in (made, GRAPH))
                losses.append(np.square(y - ref).sum() / np.square(ref).sum())
            assert found[name][bits] == pytest.approx(np.mean(losses), rel=1e-3)


@pytest.mark.parametrize("name", ["mlperf_kws_dscnn", "mlperf_ic_resnet8"])
def test_onnxruntime_behind_a_layer_gives_the_losses_of_the_references(name):
    """Residuals, a pool and a reshape behind it, the last layer, for which nothing can be cut."""
    model = KWS.with_name(f"{name}.onnx")
    graph = load_graph(model)
    samples = [random_inputs(graph, seed) for seed in range(2)]
    at = {t: (-9.0, 9.0) for t, known in graph.tensors.items() if known.dtype == DType.F32}
    cuts, told = Cuts(model, None, graph, samples[0]), []
    plain = sensitivities(graph, at, samples, (8, 4))
    found = sensitivities(graph, at, samples, (8, 4), lambda k, of: told.append((k, of)), cuts=cuts)
    assert list(found) == list(plain)
    for name in plain:
        # inputs in float32 may fall on the other side of a tie
        assert found[name] == pytest.approx(plain[name], rel=2e-2, abs=1e-9), name
    of = 2 * sum(map(len, plain.values()))
    assert told == [(k + 1, of) for k in range(of)]


def test_losses_add_up():
    """Those of all layers foretell the loss of the whole network, to a factor."""
    at = spans()
    found = sensitivities(GRAPH, at, SAMPLES, (8,))
    made = quantise(GRAPH, at, lambda *_: True, dict.fromkeys(found, 8))
    y = np.stack([interpret(made, s)["output"] for s in SAMPLES])
    ref = np.stack([interpret(GRAPH, s)["output"] for s in SAMPLES])
    whole = np.mean(np.square(y - ref).sum((1, 2)) / np.square(ref).sum((1, 2)))
    assert 1 / 8 < whole / sum(at[8] for at in found.values()) < 8


def test_fewer_bits_lose_more():
    found = sensitivities(GRAPH, spans(), SAMPLES, (8, 6, 4))
    layers = [at for at in found.values() if set(at) == {8, 6, 4}]
    total = [sum(at[bits] for at in layers) for bits in (8, 6, 4)]
    assert layers
    assert total[0] < total[1] < total[2]


def test_calibrate_keeps_losses(tmp_path):
    data, out = tmp_path / "x.npy", tmp_path / "calibration.json"
    np.save(data, np.concatenate([s["input"] for s in SAMPLES]))
    args = [str(KWS), "--data", str(data), "--out", str(out), "-v"]
    plain = CliRunner().invoke(calibrate, args, catch_exceptions=False)
    assert "sensitivity" not in json.loads(out.read_text())
    done = CliRunner().invoke(calibrate, [*args, "--sensitivity", "3"], catch_exceptions=False)
    assert "8 bits" in done.stdout
    assert "8 bits" not in plain.stdout
    found = read_calibration(out)
    assert found.to_json() == out.read_text()
    given = {"corrections": found.corrections}
    given["cuts"] = Cuts(KWS, None, GRAPH, SAMPLES[0])
    expected = sensitivities(GRAPH, found.spans, SAMPLES, (8, 7, 6, 5, 4), **given)
    assert found.sensitivity == expected
