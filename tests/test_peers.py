"""Other engines: what goes to the board, what becomes a figure and what only a reason. No package
is fetched here; the engines themselves are in test_peers_engines.py."""

import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from codegen.errors import CodegenError
from codegen.peers import heap, measure
from codegen.peers.base import Engine, Network, PeerError, Prepared, run_tool
from codegen.peers.blas_writer import write_net
from codegen.peers.engines import ENGINES, mnn, onnx2c, pick_engines
from codegen.peers.network import load_network
from codegen.run import Job, Outcome
from codegen.run.qemu import QemuRunner
from codegen.toolchain import find_host_cc
from tests.peer_cases import A57, KWS, needs_board, program


@pytest.fixture(scope="module")
def kws() -> Network:
    return load_network(KWS)


# --- memory


@pytest.mark.skipif(not find_host_cc() or sys.platform != "linux", reason="no C compiler")
def test_memory_counter_against_known_sizes(tmp_path):
    """Blocks with their size until they are freed; a map with what was touched; a file whole."""
    library, mib = tmp_path / "heap.so", 1 << 20
    flags = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2", "-fPIC", "-shared")
    command = (find_host_cc(), *flags, str(heap.source()), "-ldl", "-o", str(library))
    subprocess.run(command, check=True)
    (tmp_path / "file").write_bytes(bytes(3 * mib))
    script = """
import ctypes, mmap, json
c = ctypes.CDLL(None)
c.malloc.restype = c.cg_heap_peak.restype = ctypes.c_longlong
c.free.argtypes = [ctypes.c_longlong]
f = open("file", "r+b")
early = c.malloc(5 << 20)
c.cg_heap_begin()
first = c.malloc(20 << 20)
c.free(first)
c.malloc(8 << 20)
blocks = c.cg_heap_peak()
m = mmap.mmap(-1, 64 << 20)
m[: 2 << 20] = bytes(2 << 20)
touched = c.cg_heap_peak()
n = mmap.mmap(f.fileno(), 0)
whole = c.cg_heap_peak()
m.close()
print(json.dumps([blocks, touched, whole, c.cg_heap_peak()]))
"""
    done = subprocess.run((sys.executable, "-S", "-c", script), cwd=tmp_path, text=True,
                          capture_output=True, check=True,
                          env={**os.environ, "LD_PRELOAD": str(library)})  # fmt: skip
    blocks, touched, whole, closed = (v / mib for v in json.loads(done.stdout))
    assert blocks == pytest.approx(20, abs=0.3)
    assert touched - blocks == pytest.approx(2, abs=0.3)
    assert whole - touched == pytest.approx(3, abs=0.1)
    assert whole - closed == pytest.approx(2, abs=0.3)


# --- networks and rows


def test_a_network_has_seeded_samples_and_a_reference(kws):
    assert [t.shape for t in kws.inputs] == [(1, 1, 50, 10)]
    assert {k: v.shape for k, v in kws.expected.items()} == {"output": (1, 12)}
    again = load_network(KWS)
    assert again.model == kws.model
    assert np.array_equal(again.samples[3]["input"], kws.samples[3]["input"])


def test_only_float_networks_are_compared(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "ints.onnx")
    with pytest.raises(CodegenError, match="'x' holds i64"):
        load_network(tmp_path / "ints.onnx")


class _Runner:
    """Answers each job with the next outcome."""

    def __init__(self, *outcomes: Outcome, name: str = "virtual"):
        self.outcomes, self.jobs, self.name = list(outcomes), [], name

    def run(self, job: Job, board) -> Outcome:
        self.jobs.append(job)
        return self.outcomes.pop(0)


def _engine(**made) -> Engine:
    fields = {"program": KWS, "binary_bytes": 7, "peak_bytes": 100, **made}
    return Engine("e", "1", ("f32",), lambda *_: Prepared(**fields))


def _right(network: Network) -> dict[str, bytes]:
    return {"out.bin": network.expected["output"].tobytes()}


def test_a_right_result_has_figures(kws):
    runner = _Runner(Outcome({"cycles": 1430, "ms": 0.001}, _right(kws)))
    row = measure.measure(_engine(), kws, A57, "f32", runner)
    assert (row.engine, row.model, row.core, row.dtype, row.threads) == (
        "e", "mlperf_kws_dscnn", "a57", "f32", 1)  # fmt: skip
    assert (row.cycles, row.ms, row.peak_bytes, row.binary_bytes) == (1430, 0.001, 100, 7)
    assert row.error == ""
    assert row.max_rel_error == 0
    assert measure.from_dict({**row.as_dict(), "scale": "x"}) == row


def test_a_wrong_result_has_none(kws):
    wrong = (kws.expected["output"] + np.float32(0.03)).tobytes()
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": wrong}))
    row = measure.measure(_engine(), kws, A57, "f32", runner)
    assert row.error.startswith("wrong result: output 'output' differs")
    assert (row.cycles, row.ms, row.peak_bytes, row.binary_bytes) == (None,) * 4


@pytest.mark.parametrize(("off", "good"), [(1e-5, True), (1e-2, True), (3e-2, False)])
def test_a_result_that_is_off_by_a_little_has_figures_and_a_remark(kws, off, good):
    wanted = np.linspace(0, 1, 12, dtype=np.float32)[None]
    network = replace(kws, expected={"output": wanted})
    y = wanted + np.float32(off) * (np.arange(12) % 2).astype(np.float32)
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": y.tobytes()}))
    row = measure.measure(_engine(), network, A57, "f32", runner)
    assert row.max_rel_error == pytest.approx(off, rel=1e-2)
    assert (row.error == "", row.ms is not None) == (good, good)
    assert measure.remark(row) == (
        "the result is off by 1.0e-02 of the output's scale" if off == 1e-2 else "")  # fmt: skip
    ours = replace(ENGINES["codegen"], prepare=_engine().prepare, careful=None)
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": y.tobytes()}))
    assert bool(measure.measure(ours, network, A57, "f32", runner).error) == (off > 1e-4)


def test_a_result_that_is_off_is_measured_by_a_careful_plan(kws):
    """The row says so, whether that is exact enough or not."""
    good = kws.expected["output"]
    careful = replace(_engine(binary_bytes=9), tolerance=1e-4)
    engine = replace(_engine(), careful=careful, tolerance=1e-4)
    for off, error in ((0.0, False), (0.02, True)):
        files = [{"out.bin": (good + np.float32(o)).tobytes()} for o in (0.03, off)]
        runner = _Runner(*(Outcome({"cycles": 1, "ms": 1.0}, f) for f in files))
        row = measure.measure(engine, kws, A57, "f32", runner)
        assert row.careful
        assert (row.error != "", row.binary_bytes) == (error, None if error else 9)
        assert ("the plan that `build` makes" in measure.remark(row)) == (not error)


def test_a_careful_plan_makes_int8_no_better(kws):
    engine = replace(_engine(), dtypes=("i8",), careful=_engine())
    wrong = {"out.bin": (-kws.expected["output"]).tobytes()}
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, wrong))
    row = measure.measure(engine, kws, A57, "i8", runner)
    assert row.error.startswith(measure.WRONG)
    assert not row.careful


def test_a_flat_output_is_not_right_because_it_is_near(kws):
    wanted = (1 + np.float32(1e-2) * np.sin(np.arange(12, dtype=np.float32)))[None]
    network = replace(kws, expected={"output": wanted})
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": wanted[0, ::-1].tobytes()}))
    row = measure.measure(_engine(), network, A57, "f32", runner)
    assert row.error.startswith("wrong result")
    assert row.max_rel_error < 2e-2


def test_an_infinite_error_is_no_number(kws):
    y = np.full((1, 12), np.inf, np.float32)
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": y.tobytes()}))
    row = measure.measure(_engine(), kws, A57, "f32", runner)
    assert row.error.startswith("wrong result")
    assert row.max_rel_error is None


def test_half_a_result_is_wrong(kws):
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": b"1234"}))
    assert "too few" in measure.measure(_engine(), kws, A57, "f32", runner).error


def test_refusals_and_crashes_are_reasons(kws):
    def refuse(*_):
        raise PeerError("operator Foo is unknown")

    row = measure.measure(Engine("e", "1", ("f32",), refuse), kws, A57, "f32", _Runner())
    assert row.error == "operator Foo is unknown"
    runner = _Runner(Outcome(error="Traceback\nboom"))
    assert measure.measure(_engine(), kws, A57, "f32", runner).error == "boom"
    assert "i8 is not set up" in measure.measure(_engine(), kws, A57, "i8", _Runner()).error


def test_a_real_board_counts_by_its_clock(kws):
    runner = _Runner(Outcome({"runs_ns": [3e6, 1e6, 2e6], "cycles": None}, _right(kws)), name="ssh")
    row = measure.measure(_engine(), kws, A57, "f32", runner)
    assert (row.ms, row.cycles) == (2.0, None)
    assert runner.jobs[0].args == (str(measure.RUNS),)


def test_channels_last_engines_get_and_give_transposed_tensors(kws):
    image = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    network = replace(kws, samples=({"input": image},), expected={"output": image})
    nhwc = image.transpose(0, 2, 3, 1)
    runner = _Runner(Outcome({"cycles": 1, "ms": 1.0}, {"out.bin": nhwc.tobytes()}))
    row = measure.measure(_engine(channels_last=True), network, A57, "f32", runner)
    assert row.error == ""
    assert runner.jobs[0].inputs["in.bin"] == nhwc.tobytes()


def test_engines_are_named_in_a_list():
    assert [e.name for e in pick_engines("mnn, ncnn,mnn")] == ["mnn", "ncnn"]
    with pytest.raises(CodegenError, match="'tvm' is not known; engines: codegen"):
        pick_engines("tvm")
    assert all(e.version and "f32" in e.dtypes for e in ENGINES.values())


@pytest.mark.parametrize(
    ("command", "said"),
    [("echo no such op >&2; exit 1", "tool failed: no such op"), ("exit 3", "tool failed: 3")],
)
def test_a_converter_that_fails_is_a_reason(tmp_path, command, said):
    with pytest.raises(PeerError, match=said):
        run_tool(("sh", "-c", command), tmp_path, dict(os.environ), "tool")


def test_mnn_gets_a_text_file_for_each_input(tmp_path):
    arrays = {"gpu_0/data": np.float32([[0.5, 1e-3]]), "b": np.float32([3])}
    mnn._write_sample(tmp_path / "0", arrays, '{"inputs": []}')
    back = np.loadtxt(tmp_path / "0" / "gpu_0" / "data.txt", np.float32)
    assert np.array_equal(back, np.float32([0.5, 1e-3]))
    assert {p.name for p in (tmp_path / "0").iterdir()} == {"gpu_0", "b.txt", "input.json"}


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x"])
def test_mnn_writes_no_sample_outside_its_folder(tmp_path, name):
    with pytest.raises(PeerError, match="no input of the name"):
        mnn._write_sample(tmp_path / "0", {name: np.float32([1])}, "{}")


# --- engines that need no package


def test_steps_of_the_im2colprogram(kws):
    """One step per node of the graph, and no two values that live at once overlap."""
    data = write_net(kws.graph)
    steps, arena, patches, floats, *ports = struct.unpack_from("<8i", data)
    weights = [t for n in kws.graph.nodes if n.op in ("Conv", "Dense") for t in n.inputs[1:]]
    constants = sum(kws.graph.constants[t].size for t in weights)
    assert steps == sum(n.op not in ("Reshape", "Transpose") for n in kws.graph.nodes)
    assert floats == constants
    assert len(data) == 32 + steps * 39 * 4 + 4 * floats
    assert (ports[1], ports[3]) == (500, 12)
    # the largest pair of values that follow one another is 2 x 64x25x5, the largest patches 1x10x4
    assert 2 * 8000 <= arena < 3 * 8000
    assert patches == 64 * 25 * 5


@needs_board
@pytest.mark.parametrize(("dtype", "weight"), [("f32", 4), ("i8", 1)])
def test_codegen_itself_is_measured_like_the_others(dtype, weight, kws, tmp_path):
    prepared = ENGINES["codegen"].prepare(kws, A57, dtype, tmp_path)
    job = measure.job_of(prepared, kws, A57, 0, 60)
    run = replace(job, program=prepared.checker, args=("in.bin", "out.bin"), outputs=("out.bin",))
    outcome = QemuRunner().run(run, A57)
    assert outcome.error == ""
    data = outcome.outputs["out.bin"]
    assert measure._compare(data, prepared, kws.expected, dtype, 1e-4)[1] == ""
    assert weight * 25_000 < prepared.peak_bytes < weight * 100_000
    assert weight * 20_000 < prepared.binary_bytes < weight * 100_000


FAKE_ONNX2C = """cat <<'END'
#include <string.h>
static const float w[3] = {1, 2, 3};
void entry(const float x[1][3], float y[1][3])
{
    for (int i = 0; i < 3; i++)
        y[0][i] = x[0][i] * w[i];
}
END"""


@needs_board
def test_generators_are_compiled_run_and_their_memory_counted(tmp_path, monkeypatch):
    """With a stand-in for onnx2c, which no registry has; without it, the reason."""
    model = _elementwise(tmp_path)
    network = load_network(model)
    (tmp_path / "work").mkdir()
    if shutil.which(onnx2c.PROGRAM) is None:
        with pytest.raises(PeerError, match="in no package registry"):
            onnx2c.ENGINE.prepare(network, A57, "f32", tmp_path / "work")
    program(tmp_path / "bin", onnx2c.PROGRAM, FAKE_ONNX2C)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    prepared = onnx2c.ENGINE.prepare(network, A57, "f32", tmp_path / "work")
    outcome = QemuRunner().run(measure.job_of(prepared, network, A57, 2, 60), A57)
    assert outcome.error == ""
    assert len(outcome.report["runs_ns"]) == 2
    data = outcome.outputs["out.bin"]
    assert measure._compare(data, prepared, network.expected, "f32", 1e-4) == (0.0, "")
    counted = QemuRunner().run(measure.job_of(prepared, network, A57, measure.MEMORY, 60), A57)
    assert 12 <= counted.report["peak_bytes"] < 65536  # the output, and stdio's buffers
    assert 12 <= prepared.resident_bytes < 1024  # the weights


def _elementwise(folder: Path) -> Path:
    shape = [1, 3]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
    w = helper.make_tensor("w", TensorProto.FLOAT, shape, [1.0, 2.0, 3.0])
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "scale.onnx")
    return folder / "scale.onnx"


@needs_board
def test_codegen_is_held_against_a_second_sample(kws):
    """It is right on the first one, and what is expected of the second one is not what it makes."""
    engine = replace(ENGINES["codegen"], careful=None)
    wrong = {name: value + 1 for name, value in kws.expected.items()}
    row = measure.measure(engine, replace(kws, also=(wrong,)), A57, "f32", QemuRunner())
    assert row.error.startswith(measure.WRONG)
    assert row.max_rel_error > 0.1
