"""Every engine in its own words: converted, run in qemu on the A57's sysroot, compared with
onnxruntime. Slow: packages may have to be fetched, and each engine starts a Python under qemu."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from codegen.board import load_board
from codegen.errors import CodegenError
from codegen.peers import measure
from codegen.peers.base import PeerError
from codegen.peers.engines import ENGINES
from codegen.peers.network import load_network
from codegen.peers.portable import portable
from codegen.peers.sysroot import sysroot
from codegen.run.qemu import QemuRunner
from codegen.run.virtual import missing
from codegen.toolchain import find_qemu
from tests.ssh_board import go, needs_sshd

MODELS = Path(__file__).resolve().parent.parent / "examples" / "models"
A57 = load_board("jetson-nano-cpu")
_WHY = missing(A57) or (
    "" if shutil.which("aarch64-linux-gnu-gcc") else "no aarch64-linux-gnu-gcc on this machine"
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_WHY), reason=_WHY)]
PEERS = [n for n in ENGINES if not n.startswith("codegen") and n != "onnx2c"]


@pytest.fixture(scope="module", autouse=True)
def _packages():
    """The arm64 base system must be there, or be reachable."""
    try:
        sysroot(A57)
    except CodegenError as e:
        pytest.skip(str(e))


def _run(name: str, model: Path, dtype: str, folder: Path) -> dict:
    """Prepare and run in qemu; the errors and the memory."""
    network = load_network(model)
    prepared = ENGINES[name].prepare(network, A57, dtype, folder)
    outcome = QemuRunner().run(measure.job_of(prepared, network, A57, 1, 300), A57)
    assert outcome.error == ""
    error, wrong = measure._compare(
        outcome.outputs["out.bin"], prepared, network.expected, dtype, 1e-4
    )
    counted = QemuRunner().run(measure.job_of(prepared, network, A57, measure.MEMORY, 300), A57)
    assert counted.error == ""
    return {
        "wrong": wrong,
        "error": error,
        "peak": counted.report["peak_bytes"] + prepared.resident_bytes,
        "binary": prepared.binary_bytes,
    }


@pytest.mark.parametrize("model", ["mnist8", "mlperf_kws_dscnn"])
@pytest.mark.parametrize("name", PEERS)
def test_every_engine_computes_what_onnxruntime_does(name, model, tmp_path):
    path = MODELS / f"{model}.onnx"
    found = _run(name, path, "f32", tmp_path)
    assert found["wrong"] == ""
    assert 0 <= found["error"] < 1e-4
    # the weights at least, and no engine holds more than some MiB beside them
    assert path.stat().st_size * 0.9 < found["peak"] < path.stat().st_size + (6 << 20)
    assert path.stat().st_size * 0.9 < found["binary"] < 64 << 20


@pytest.mark.parametrize("name", [n for n in PEERS if "i8" in ENGINES[n].dtypes])
def test_int8_is_near_enough_and_its_model_smaller(name, tmp_path):
    path = MODELS / "mlperf_vww_mbv1_025.onnx"
    (tmp_path / "f").mkdir()
    (tmp_path / "i").mkdir()
    as_float = ENGINES[name].prepare(load_network(path), A57, "f32", tmp_path / "f")
    found = _run(name, path, "i8", tmp_path / "i")
    assert found["wrong"] == ""
    assert as_float.binary_bytes - found["binary"] > 0.5 * path.stat().st_size


def _odd_network(folder: Path) -> Path:
    """What real networks have beside plain layers: grouped and dilated convolution, uneven pads, a
    channel multiplier, gates, a reshape that mixes channels, a transposed concatenation."""
    rng = np.random.default_rng(0)
    constants, nodes = [], []

    def w(name: str, *shape: int) -> str:
        array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def node(op: str, inputs: list[str], output: str, **attrs) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attrs))
        return output

    a = node("Conv", ["x", w("w1", 8, 4, 3, 3), w("b1", 8)], "a", pads=[1, 0, 0, 1],
             kernel_shape=[3, 3])  # fmt: skip
    a = node("HardSwish", [a], "a2")
    d = node("Conv", [a, w("w2", 16, 1, 3, 3), w("b2", 16)], "d", group=8, pads=[2, 2, 2, 2],
             dilations=[2, 2])  # fmt: skip
    d = node("Clip", [d, "low", "high"], "d2")
    constants.append(numpy_helper.from_array(np.float32(0), "low"))
    constants.append(numpy_helper.from_array(np.float32(6), "high"))
    g = node("GlobalAveragePool", [d], "g")
    g = node("Conv", [g, w("w3", 16, 16, 1, 1), w("b3", 16)], "g2")
    g = node("HardSigmoid", [g], "g3", alpha=1 / 6, beta=0.5)
    m = node("Mul", [d, g], "m")
    p = node("MaxPool", [m], "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    q = node("AveragePool", [m], "q", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    c = node("Concat", [p, q], "c", axis=1)
    r = node("Conv", [c, w("w4", 32, 32, 1, 1), w("b4", 32)], "r")
    r = node("Add", [r, c], "r2")
    r = node("Relu", [r], "r3")
    constants.append(numpy_helper.from_array(np.int64([1, -1]), "flat"))
    f = node("Reshape", [r, "flat"], "f")
    node("Gemm", [f, w("w5", 32 * 5 * 6, 10), w("b5", 10)], "y")
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 10, 12]),
             helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])]  # fmt: skip
    graph = helper.make_graph(nodes, "odd", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.save(model, folder / "odd.onnx")
    return folder / "odd.onnx"


@pytest.mark.parametrize("name", PEERS)
def test_a_network_of_unusual_layers(name, tmp_path):
    """Right, or refused with a reason; never wrong. Our own two writers take all of it."""
    (tmp_path / "work").mkdir()
    try:
        found = _run(name, _odd_network(tmp_path), "f32", tmp_path / "work")
    except PeerError:
        found = {"wrong": "", "error": 0.0, "refused": True}
    assert found["wrong"] == ""
    assert found["error"] < 1e-4
    assert "refused" not in found or name not in ("blas", "litert", "ort")


@needs_sshd
@pytest.mark.usefixtures("ssh_board")
def test_an_engine_goes_to_a_board_that_has_nothing(tmp_path):
    """Interpreter, libraries and package travel with the job; the test's board starts AArch64
    programs through qemu, which it must be told for those that another program starts."""
    network = load_network(MODELS / "mlperf_kws_dscnn.onnx")
    prepared = ENGINES["ncnn"].prepare(network, A57, "f32", tmp_path)
    job = measure.job_of(prepared, network, A57, measure.MEMORY, 300)
    outcome = go(portable(job, A57, (find_qemu(), "-cpu", A57.qemu_cpu)))
    assert outcome.error == ""
    data = outcome.outputs["out.bin"]
    assert measure._compare(data, prepared, network.expected, "f32", 1e-4)[1] == ""
    assert 100_000 < outcome.report["peak_bytes"] < 1_000_000
