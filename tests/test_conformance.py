"""The ONNX backend node suite, evaluated in process: every case is right, or refused."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from codegen.errors import CodegenError
from codegen.graph import Graph
from codegen.interpret import interpret
from codegen.onnx_file import MIN_OPSET, model_inputs, opset_of
from codegen.onnx_import import translate
from codegen.ops import OPS

# Cases whose expected values are not what this project promises; each needs a reason.
_ALIGN = "the length of the result is rounded down before it is used, as onnxruntime and PyTorch do"
DEVIATIONS = {
    "test_resize_downsample_scales_linear_align_corners": _ALIGN,
    "test_resize_downsample_scales_cubic_align_corners": _ALIGN,
}


@dataclass(frozen=True)
class Outcome:
    """What became of one case: passed, refused (a reason) or wrong (a difference)."""

    name: str
    refused: str = ""
    wrong: str = ""
    pinned: bool = False


@lru_cache(maxsize=1)
def cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"):
        return collect_testcases(None)


@lru_cache(maxsize=1)
def outcomes() -> tuple[Outcome, ...]:
    with np.errstate(all="ignore"):
        return tuple(_guarded(case) for case in cases())


def _guarded(case: Any) -> Outcome:
    """Anything but a CodegenError is a bug."""
    try:
        return _outcome(case)
    except Exception as e:
        return Outcome(case.name, wrong=f"{type(e).__name__}: {e}")


def _outcome(case: Any) -> Outcome:
    try:
        graph, arrays, pinned = import_case(case)
    except CodegenError as e:
        return Outcome(case.name, refused=_reason(e))
    got = interpret(graph, arrays)
    wrong = difference_of(case, [got[t] for t in graph.outputs])
    return Outcome(case.name, wrong=wrong, pinned=pinned)


def import_case(case: Any) -> tuple[Graph, dict[str, np.ndarray], bool]:
    """Graph, inputs, and whether parameters read at run time had to become initialisers (only
    where they stop the import). CodegenError where the case is not supported."""
    inputs = case.data_sets[0][0]
    try:
        return *_import(case, case.model, inputs), False
    except CodegenError:
        pinned = _pin_parameters(case.model, inputs)
        if pinned is None:
            raise
    return *_import(case, *pinned), True


def _reason(error: CodegenError) -> str:
    text = str(error).splitlines()
    return (text[1] if len(text) > 1 else text[0]).strip()


def _import(
    case: Any, model: onnx.ModelProto, inputs: list
) -> tuple[Graph, dict[str, np.ndarray]]:
    if opset_of(model) < MIN_OPSET:
        raise CodegenError(case.name, f"opset {opset_of(model)}", f"{MIN_OPSET} or newer", "")
    arrays = {i.name: _array(a) for i, a in zip(model_inputs(model), inputs, strict=True)}
    return translate(_sized(model, arrays), Path("case.onnx"), "case"), arrays


def _array(value: Any) -> np.ndarray:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if not isinstance(value, np.ndarray | np.generic):
        raise CodegenError("case", "an input is a sequence or absent", "tensors", "")
    return np.asarray(value)


def _sized(model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The model with the shapes of these inputs (some leave them open) and functions inlined."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for info in model_inputs(copy):
        if not info.type.HasField("tensor_type"):
            raise CodegenError("case", f"input {info.name!r} is not a tensor", "tensors", "")
        del info.type.tensor_type.shape.dim[:]
        for extent in arrays[info.name].shape:
            info.type.tensor_type.shape.dim.add().dim_value = extent
    return onnx.inliner.inline_local_functions(copy) if copy.functions else copy


def _pin_parameters(model: onnx.ModelProto, inputs: list) -> tuple[onnx.ModelProto, list] | None:
    """Inputs that feed a parameter slot of a node become initialisers; None if there are none."""
    infos = list(zip(model_inputs(model), inputs, strict=True))
    parameters = {
        node.input[i]
        for node in model.graph.node
        if node.op_type in OPS
        for i in OPS[node.op_type].const_inputs
        if i < len(node.input)
    }
    if len(model.graph.node) > 1:  # an expanded function: any integer vector is a parameter
        parameters |= {
            i.name
            for i, a in infos
            if isinstance(a, np.ndarray) and a.dtype == np.int64 and a.ndim <= 1
        }
    chosen = [(i, a) for i, a in infos if i.name in parameters]
    if not chosen or any(not isinstance(a, np.ndarray | np.generic) for _, a in chosen):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = {i.name for i, _ in chosen}
    kept = [i for i in copy.graph.input if i.name not in names]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), i.name) for i, a in chosen)
    return copy, [a for i, a in infos if i.name not in names]


def difference_of(case: Any, got: list[np.ndarray]) -> str:
    """What is wrong with these outputs; "" where nothing is."""
    for mine, theirs in zip(got, case.data_sets[0][1], strict=True):
        theirs = _array(theirs)
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return f"{mine.dtype}{mine.shape} instead of {theirs.dtype}{theirs.shape}"
        close = np.isclose(mine, theirs, case.rtol, max(case.atol, 1e-6), equal_nan=True)
        if not close.all():
            at = np.argwhere(~close)[0]
            return (
                f"{(~close).sum()} of {mine.size} differ, first at {tuple(map(int, at))}: "
                f"{mine[tuple(at)]} instead of {theirs[tuple(at)]}"
            )
    return ""


def test_no_case_is_wrong():
    wrong = [f"{o.name}: {o.wrong}" for o in outcomes() if o.wrong and o.name not in DEVIATIONS]
    assert not wrong, f"{len(wrong)} cases:\n" + "\n".join(wrong)


def test_every_deviation_still_deviates():
    by_name = {o.name: o for o in outcomes()}
    assert [n for n in DEVIATIONS if not by_name[n].wrong] == []


def _group(reason: str) -> str:
    """A refusal without the names in it, so that equal ones count together."""
    if "no such operator" in reason:
        return f"no such operator: {reason.split()[0]}"
    if "has element type" in reason:
        return "element type that is neither numeric nor bool"
    return re.sub(r"^\S+ '[^']*': |; (rewrite|make it|export|numeric|change).*", "", reason)


def test_coverage(capsys):
    """About as many cases as when this was written; prints what is refused and why."""
    passed = [o for o in outcomes() if not o.wrong and not o.refused]
    refused = Counter(_group(o.refused) for o in outcomes() if o.refused)
    with capsys.disabled():
        print(
            f"\n{len(outcomes())} cases: {len(passed)} pass "
            f"({sum(o.pinned for o in passed)} with parameters made constant), "
            f"{refused.total()} refused:"
        )
        for reason, count in refused.most_common():
            print(f"  {count:4} {reason[:110]}")
    assert len(passed) >= 850
