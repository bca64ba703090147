"""A model file -> what every engine gets: shapes pinned, seeded inputs, onnxruntime's outputs."""

import tempfile
from pathlib import Path

from codegen.errors import CodegenError
from codegen.onnx_file import pin_shapes, read_model
from codegen.peers.base import Network
from codegen.pipeline import Shapes, load_graph
from codegen.reference import Reference, random_inputs

SAMPLES = 9  # the first is measured, the others calibrate int8
VERIFIED = 2  # of them, as many as `build` takes


def load_network(model: Path, shapes: Shapes | None = None, name: str = "") -> Network:
    """CodegenError where the model cannot be read, has an open shape, or an input that is not
    float32 (which is what the engines are compared on)."""
    pinned = pin_shapes(read_model(model), model, shapes or {})
    with tempfile.TemporaryDirectory(prefix="codegen-peers-") as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(pinned.SerializeToString(deterministic=True))
        graph = load_graph(file)
        samples = tuple(random_inputs(graph, seed) for seed in range(SAMPLES))
        reference = Reference(file)
        expected, *also = (reference.run(s) for s in samples[:VERIFIED])
        data = file.read_bytes()
    for tensor in (graph.tensors[t] for t in (*graph.inputs, *graph.outputs)):
        if tensor.dtype.value != "f32":
            raise CodegenError(
                str(model),
                f"tensor {tensor.name!r} holds {tensor.dtype.value}",
                "engines are compared on networks with float32 inputs and outputs",
                "convert the model",
            )
    return Network(name or model.stem, data, graph, samples, expected, tuple(also))
