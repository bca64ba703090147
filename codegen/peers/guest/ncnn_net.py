"""ncnn on a network of its own format; its names are in0, in1, ... and out0, out1, ..."""

import ncnn
import numpy as np
from board import Task

task = Task()
net = ncnn.Net()
net.opt.num_threads = 1
# as a float32 user has it: no half-precision storage or arithmetic
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
net.opt.use_bf16_storage = False
net.load_param("model.param")
net.load_model("model.bin")
inputs = [ncnn.Mat(a[0] if a.ndim > 1 else a) for a in task.inputs.values()]


def run():
    extractor = net.create_extractor()
    for i, mat in enumerate(inputs):
        extractor.input(f"in{i}", mat)
    results = []
    for i in range(len(task.outputs)):
        failed, mat = extractor.extract(f"out{i}")
        assert not failed, f"out{i}"
        results.append(mat)
    return results


task.finish(run, np.asarray)
