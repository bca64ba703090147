"""LiteRT's interpreter; XNNPACK is its default delegate."""

from ai_edge_litert.interpreter import Interpreter
from board import Task

task = Task()
interpreter = Interpreter("model.tflite", num_threads=1)
interpreter.allocate_tensors()
places = [d["index"] for d in interpreter.get_input_details()]
results = [d["index"] for d in interpreter.get_output_details()]


def run():
    for place, array in zip(places, task.inputs.values(), strict=True):
        interpreter.set_tensor(place, array)
    interpreter.invoke()
    return [interpreter.get_tensor(r) for r in results]


task.finish(run)
