"""Shape rules and references of all operators against onnxruntime."""

from pathlib import Path

import numpy as np
import pytest

from codegen.interpret import interpret
from codegen.onnx_import import translate
from codegen.ops import OPS
from tests.onnx_cases import one_node_models, reference_outputs, schema_at

CASES = list(one_node_models())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_reference_agrees_with_onnxruntime(case):
    graph = translate(case.model, Path("case.onnx"), "case")
    got = interpret(graph, case.inputs)
    for name, want in zip(graph.outputs, reference_outputs(case), strict=True):
        assert got[name].shape == want.shape
        assert got[name].dtype == want.dtype
        scale = np.max(np.abs(want[np.isfinite(want)]), initial=1) if want.dtype.kind == "f" else 1
        np.testing.assert_allclose(got[name], want, rtol=1e-4, atol=2e-6 * scale)


def test_every_onnx_operator_has_cases():
    tested = {c.id.split("-")[0] for c in CASES}
    folded = {op.name for op in OPS.values() if op.fold}
    onnx_ops = {name for name in OPS if schema_at(name, 26)} - folded
    assert onnx_ops - tested == set()


def test_every_kernel_operator_has_a_reference_and_dims():
    for op in OPS.values():
        assert op.expand or op.fold or op.reference, op.name
        if op.family:
            assert op.reference, op.name
            assert op.dims, op.name
