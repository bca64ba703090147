"""onnxruntime's CPU execution provider."""

import onnxruntime as ort
from board import Task

task = Task()
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
session = ort.InferenceSession("model.onnx", options, ["CPUExecutionProvider"])
task.finish(lambda: session.run(task.outputs, task.inputs))
