"""What the network should compute: onnxruntime on the user's own file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.interpret import interpret
from codegen.onnx_file import pin_shapes, read_model, with_inputs, with_outputs
from codegen.types import DType


def random_inputs(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Normally distributed floats, small integers, any codes of int8, coin flips; the same for the
    same seed. Floats that a calibrated network rounds to codes are of all that these stand for."""
    rng = np.random.default_rng(seed)
    coded = {
        n.inputs[0]: n for n in graph.nodes
        if n.attrs.get("inverse") and all(graph.constants[k].size == 1 for k in n.inputs[1:])
    }  # fmt: skip
    out = {}
    for name in graph.inputs:
        t = graph.tensors[name]
        if name in coded:
            scale, zero = (graph.constants[k].item() for k in coded[name].inputs[1:])
            codes = rng.uniform(-128 - zero, 127 - zero, t.shape)
            out[name] = (scale * codes).astype(t.dtype.numpy)
        elif t.dtype.numpy.kind == "f":
            out[name] = rng.standard_normal(t.shape).astype(t.dtype.numpy)
        elif t.dtype == DType.I8:
            out[name] = rng.integers(-128, 128, t.shape).astype(np.int8)
        else:
            out[name] = rng.integers(0, 2 if t.dtype.numpy.kind == "b" else 10, t.shape).astype(
                t.dtype.numpy
            )
    return out


class Reference:
    """An onnxruntime session on the model as the user gave it, with `extra` intermediate tensors
    as outputs; `given` ones, with their types, are inputs."""

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, Sequence[int]] | None = None,
        extra: Sequence[str] = (),
        given: Mapping[str, DType] | None = None,
    ):
        # Nothing about a user's network leaves their machine; read when the library starts.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime as ort

        model = pin_shapes(read_model(path), path, shapes or {})
        for node in model.graph.node:
            node.name = ""  # onnxruntime refuses two nodes of one name; nothing here needs them
        self.extra = with_outputs(model, extra)
        with_inputs(model, given or {})
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 2
        if self.extra:  # a fused node has no intermediate result
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, ["CPUExecutionProvider"]
            )
        except Exception as e:
            raise CodegenError(
                str(path),
                f"onnxruntime cannot load it ({str(e).splitlines()[0]})",
                "verification needs onnxruntime as reference",
                "use --no-verify, or fix the model",
            ) from None
        self._where = str(path)
        self.outputs = tuple(o.name for o in self._session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output (and extra tensor) by name. CodegenError where onnxruntime refuses the
        inputs, e.g. an index that is out of range."""
        known = {i.name for i in self._session.get_inputs()}
        try:
            values = self._session.run(None, {k: v for k, v in inputs.items() if k in known})
        except Exception as e:
            raise CodegenError(
                self._where,
                f"onnxruntime cannot run it ({str(e).splitlines()[0]})",
                "inputs that the model accepts",
                "check the values of the inputs",
            ) from None
        return dict(zip(self.outputs, values, strict=True))


class Interpreted:
    """The numpy references on a network as it is computed, in integers: what the C code must
    equal. Looks like a Reference without extra tensors."""

    extra: tuple[str, ...] = ()

    def __init__(self, graph: Graph):
        self.graph, self.outputs = graph, graph.outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name."""
        return interpret(self.graph, inputs)
