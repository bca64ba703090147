"""The command line as a user meets it: exit codes, messages, and what is left in the output
folder."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from codegen import cli
from codegen.resources import examples_dir

MNIST = examples_dir() / "models" / "mnist8.onnx"


def run(*args):
    """Exit code, stdout, stderr of the tool as a process would show them."""
    done = subprocess.run(
        [sys.executable, "-m", "codegen.cli", *map(str, args)], capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """mnist8 built for this machine."""
    out = tmp_path_factory.mktemp("cli") / "mnist"
    code, stdout, stderr = run("build", MNIST, "--board", "local", "--out", out, "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["verified"]
    return out


def test_folder_has_everything(built):
    have = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    assert have >= {
        "include/mnist8.h", "src/mnist8.c", "CMakeLists.txt", "CMakePresets.json", "plan.json",
        "report.json", "memory.svg", "build/libmnist8.a", "build/verify", "build/bench",
    }  # fmt: skip


def test_build_again_over_the_first(built):
    before = (built / "src/mnist8.c").read_bytes()
    code, _, stderr = run("build", MNIST, "--board", "local", "--out", built)
    assert code == 0
    assert "verified against onnxruntime" in stderr
    assert (built / "src/mnist8.c").read_bytes() == before


def test_plan_makes_the_same_library(built, tmp_path):
    code, _, stderr = run(
        "build", MNIST, "--board", "local", "--out", tmp_path / "o", "--plan", built / "plan.json"
    )
    assert code == 0, stderr
    for path in (*(built / "src").iterdir(), built / "plan.json"):
        again = tmp_path / "o" / path.relative_to(built)
        assert again.read_bytes() == path.read_bytes(), path.name


def test_edited_plan_is_obeyed(built, tmp_path):
    plan = json.loads((built / "plan.json").read_text())
    first = next(iter(plan["nodes"]))
    plan["nodes"][first] = {"kernel": "conv2d_nchw_f32_c", "layout": "nchw"}
    del plan["conversions"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    out = tmp_path / "o"
    code, stdout, stderr = run(
        "build", MNIST, "--board", "local", "--out", out, "--plan", tmp_path / "plan.json", "--json"
    )
    assert code == 0, stderr
    assert "conv2d_nchw_f32_c" in {layer["kernel"] for layer in json.loads(stdout)["layers"]}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["build", "none.onnx", "--board", "local"], "no such file"),
        (["build", MNIST, "--board", "toaster"], "toaster"),
        (["build", MNIST, "--board", "local", "--shape", "Input3"], "NAME=DxDxD"),
        (["build", MNIST, "--board", "local", "--shape", "x=1x1", "--shape", "x=1x1"], "twice"),
        (["build", MNIST, "--board", "local", "--shape", "nope=1x2"], "nope"),
        (["build", MNIST, "--board", "local", "--runner", "toaster"], "runners:"),
        (["build", MNIST, "--board", "local", "--runner", "qemu"], "cannot run code"),
        (["build", MNIST, "--board", "local", "--plan", "none.json"], "no such file"),
        (["build", MNIST, "--board", "local", "--inputs", "none.npz"], "no such file"),
        (["build", MNIST, "--board", "local", "--threads", "0"], "0 threads; whole numbers: 1 to"),
        (["build", MNIST, "--board", "local", "--threads", "-2"], "--threads: -2 threads"),
        (["build", MNIST, "--board", "raspberry-pi-4", "--threads", "5"], "has 4 cores: 1 to 4"),
        (["bench", MNIST, "--board", "raspberry-pi-4", "--threads", "2"], "counts the cycles of"),
        (["build", MNIST, "--board", "raspberry-pi-4", "--threads", "2", "--runner", "virtual"],
         "2 threads on the virtual board"),
        (["verify", MNIST, "none"], "no report.json"),
        (["ops", "Nope"], "no operator"),
        (["build", MNIST], "--board"),
    ],
)
def test_bad_input_is_one_line_and_code_2(args, said, tmp_path):
    if args[0] == "build":
        args = [*args, "--out", tmp_path / "out"]
    code, stdout, stderr = run(*args)
    assert code == 2
    assert said in stderr
    assert "Traceback" not in stderr
    assert stderr.startswith(("error: ", "Usage: "))
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def threaded(tmp_path_factory):
    """mnist8 built for two threads of this machine."""
    out = tmp_path_factory.mktemp("cli") / "mnist"
    code, stdout, stderr = run(
        "build", MNIST, "--board", "local", "--out", out, "--threads", 2, "--json"
    )
    assert code == 0, stderr
    report = json.loads(stdout)
    assert report["verified"]
    assert report["threads"] == 2
    return out


def test_threads_from_build_to_bench(threaded, tmp_path):
    """What the plan says is built again, verified, measured and counted; --threads goes first."""
    assert json.loads((threaded / "plan.json").read_text())["threads"] == 2
    plan, out = ("--plan", threaded / "plan.json"), tmp_path / "o"
    assert run("build", MNIST, "--board", "local", "--out", out, *plan)[0] == 0
    for path in (threaded / "src").iterdir():
        assert (out / "src" / path.name).read_bytes() == path.read_bytes()
    assert run("build", MNIST, "--board", "local", "--out", out, *plan, "--threads", 1)[0] == 0
    assert not (out / "src/mnist8_tasks.c").exists()
    code, _, stderr = run("verify", MNIST, threaded, "--layers")
    assert code == 0, stderr
    code, stdout, stderr = run("bench", threaded, "--board", "local", "--json")
    assert code == 0, stderr
    measured = json.loads(stdout)
    assert measured["threads"] == 2
    assert measured["cycles"] is None
    assert measured["ms"] > 0
    assert run("size", threaded)[0] == 0


def test_threads_do_not_go_with_a_folder(threaded):
    code, _, stderr = run("bench", threaded, "--board", "local", "--threads", 2)
    assert code == 2
    assert "--threads:" in stderr
    assert "is already built" in stderr


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, stderr = run("build", MNIST, "--board", "local", "--out", tmp_path)
    assert code == 2
    assert "files that no build made" in stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_out_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    code, _, stderr = run("build", MNIST, "--board", "local", "--out", tmp_path / "out")
    assert code == 2
    assert "is not a folder" in stderr


def test_out_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, stderr = run("build", MNIST, "--board", "local", "--out", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot write" in stderr


def test_dynamic_shape_is_pinned(tmp_path):
    model = onnx.load(MNIST)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "m.onnx")
    code, _, stderr = run("build", tmp_path / "m.onnx", "--board", "local", "--out", tmp_path / "o")
    assert code == 2
    assert "--shape Input3=1x1x28x28" in stderr
    code, _, stderr = run(
        "build", tmp_path / "m.onnx", "--board", "local", "--out", tmp_path / "o",
        "--shape", "Input3=1x1x28x28",
    )  # fmt: skip
    assert code == 0, stderr


def test_name_prefixes_every_symbol(tmp_path):
    code, stdout, _ = run(
        "build", MNIST, "--board", "local", "--out", tmp_path / "o", "--name", "my net", "--json"
    )
    assert code == 0
    assert json.loads(stdout)["name"] == "my_net"
    assert "void my_net_run(" in (tmp_path / "o/include/my_net.h").read_text()


def test_verify_reads_npy_npz_and_test_data(built, tmp_path):
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", Input3=x[:1])
    folder = tmp_path / "data" / "test_data_set_0"
    folder.mkdir(parents=True)
    onnx.save_tensor(onnx.numpy_helper.from_array(x[:1]), folder / "input_0.pb")
    for source, count in ((tmp_path / "x.npy", 3), (tmp_path / "x.npz", 1), (tmp_path / "data", 1)):
        code, stdout, stderr = run("verify", MNIST, built, "--inputs", source, "--json")
        assert code == 0, stderr
        cases = json.loads(stdout)
        assert len(cases) == count
        assert all(c["passed"] for c in cases)


def test_verify_believes_the_expected_output_of_test_data(built, tmp_path):
    x = np.zeros((1, 1, 28, 28), np.float32)
    onnx.save_tensor(onnx.numpy_helper.from_array(x), tmp_path / "input_0.pb")
    wrong = onnx.numpy_helper.from_array(np.ones((1, 10), np.float32))
    onnx.save_tensor(wrong, tmp_path / "output_0.pb")
    code, _, stderr = run("verify", MNIST, built, "--inputs", tmp_path)
    assert code == 1
    assert "WRONG" in stderr


def test_verify_refuses_another_model(built):
    code, _, stderr = run("verify", examples_dir() / "models/mlperf_ic_resnet8.onnx", built)
    assert code == 2
    assert "another model" in stderr


def test_a_new_bug_keeps_its_traceback(monkeypatch):
    def boom(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(cli.cli, "main", boom)
    with pytest.raises(ZeroDivisionError):
        cli.main([])
