"""Labelled data through the C library: the same class as onnxruntime, image by image."""

import numpy as np
import pytest

from benchmarks.accuracy.samples import model_of
from codegen.board import load_board
from codegen.build import compile_library
from codegen.pipeline import generate
from codegen.reference import Reference
from codegen.run import pick_runner
from codegen.sources import write
from codegen.toolchain import find_toolchain
from codegen.verify import Interface, infer
from tests.library import labelled

# network -> (views of each image, top-1 of onnxruntime in percent)
EXPECTED = {
    "mnist8": (1, 99.36),
    "fashion_dscnn": (1, 91.51),
    "mlperf_ic_resnet8": (2, 85.0),
    "squeezenet1_1": (10, 66.0),
    "efficientnet_lite0": (10, 86.5),
}


def _top1(name, board_name, tmp_path, samples, crops):
    board = load_board(board_name)
    runner = pick_runner(board)
    if runner is None:
        pytest.skip(f"no runner for {board_name} here: qemu-aarch64 or a cross compiler is missing")
    model = model_of(name)
    images, labels = labelled(name, crops)
    images, labels = images[:samples], labels[:samples]
    generated = generate(model, board)
    write(generated.sources, tmp_path)
    binary = compile_library(generated.sources, tmp_path, find_toolchain(board))
    assert not binary.error, binary.error
    source, target = generated.graph.inputs[0], generated.graph.outputs[0]
    inputs = [{source: image[None]} for image in images]
    ours = infer(
        Interface.of(generated.sources, generated.schedule), binary.verify, runner, board, inputs
    )
    reference = Reference(model)
    theirs = [reference.run(x)[target] for x in inputs]
    mine = np.array([y[target].argmax() for y in ours])
    assert np.array_equal(mine, np.array([y.argmax() for y in theirs]))
    return 100.0 * float((mine == labels).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_top1_equals_onnxruntime(name, tmp_path):
    crops, expected = EXPECTED[name]
    assert _top1(name, "local", tmp_path, None, crops) == pytest.approx(expected, abs=0.51)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_top1_equals_onnxruntime_on_the_board(name, tmp_path):
    assert _top1(name, "jetson-nano-cpu", tmp_path, 20, 1) > 50.0
