"""Does the compiled library compute what onnxruntime computes on the user's model?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codegen.board import Board
from codegen.compare import CODED, Difference, difference, passes
from codegen.errors import CodegenError
from codegen.graph import Tensor
from codegen.layout import memory_shape, permutation
from codegen.memory import Schedule
from codegen.onnx_file import read_tensor
from codegen.reference import Reference
from codegen.run import Job, Outcome, Runner
from codegen.sources import Sources
from codegen.types import DType


@dataclass(frozen=True)
class Trace:
    """What the verify program dumps after a step: one tensor in some layout."""

    layer: str
    tensor: Tensor
    layout: str


@dataclass(frozen=True)
class Interface:
    """How to talk to the verify program: tensors in and out, and the dumps in order. `half`,
    `coded`: some of it is computed in float16 or in int8, so that no float is better than that."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    traces: tuple[Trace, ...]

    @property
    def half(self) -> bool:
        return self._has(DType.F16)

    @property
    def coded(self) -> bool:
        return self._has(DType.I8)

    def _has(self, dtype: DType) -> bool:
        tensors = (*self.inputs, *self.outputs, *(t.tensor for t in self.traces))
        return any(t.dtype == dtype for t in tensors)

    def passes(self, d: Difference, dtype: DType) -> bool:
        """Is the difference of a tensor of this type within its tolerance?"""
        if dtype.numpy.kind == "f" and self.coded:
            return d.max_rel <= CODED
        float_in_half = self.half and dtype.numpy.kind == "f"
        return passes(d, DType.F16.value if float_in_half else dtype.value)

    @staticmethod
    def of(sources: Sources, schedule: Schedule) -> "Interface":
        values = schedule.program.values
        traces = tuple(
            Trace(c.step.name, values[k].tensor, values[k].layout)
            for c in sources.calls
            for k in c.step.outputs
        )
        return Interface(
            tuple(p.tensor for p in sources.inputs),
            tuple(p.tensor for p in sources.outputs),
            traces,
        )

    def to_dict(self) -> dict[str, Any]:
        def plain(t: Tensor) -> dict[str, Any]:
            return {"name": t.name, "shape": list(t.shape), "dtype": t.dtype.value}

        return {
            "inputs": [plain(t) for t in self.inputs],
            "outputs": [plain(t) for t in self.outputs],
            "traces": [
                {"layer": t.layer, "layout": t.layout, **plain(t.tensor)} for t in self.traces
            ],
        }

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> "Interface":
        def tensor(r: Mapping[str, Any]) -> Tensor:
            return Tensor(r["name"], tuple(r["shape"]), DType(r["dtype"]))

        return Interface(
            tuple(map(tensor, raw["inputs"])),
            tuple(map(tensor, raw["outputs"])),
            tuple(Trace(r["layer"], tensor(r), r["layout"]) for r in raw["traces"]),
        )


@dataclass(frozen=True)
class LayerResult:
    """Error of one step's result; `difference` is None, with the reason, where the model has no
    such tensor."""

    layer: str
    tensor: str
    difference: Difference | None
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class CaseResult:
    """One set of inputs: the error of every output, of every layer when asked, or why it could
    not be run."""

    name: str
    outputs: Mapping[str, Difference]
    passed: bool
    layers: tuple[LayerResult, ...] = ()
    error: str = ""

    @property
    def first_divergence(self) -> str:
        """The first layer whose result is off by more than the tolerance; "" where there is
        none."""
        return next((r.layer for r in self.layers if not r.passed), "")


@dataclass(frozen=True)
class Case:
    """Inputs by name; `expected` outputs where the data brings its own."""

    name: str
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray] | None = None


def run_samples(
    interface: Interface,
    program: Path,
    runner: Runner,
    board: Board,
    samples: Sequence[Mapping[str, np.ndarray]],
    timeout_s: float,
    trace: bool = False,
) -> Outcome:
    """Run the verify program on any number of inputs in one go."""
    data = b"".join(
        np.ascontiguousarray(s[t.name]).tobytes() for s in samples for t in interface.inputs
    )
    wanted = ("out.bin", "trace.bin") if trace else ("out.bin",)
    return runner.run(Job(program, ("in.bin", *wanted), {"in.bin": data}, wanted, timeout_s), board)


def infer(
    interface: Interface,
    program: Path,
    runner: Runner,
    board: Board,
    samples: Sequence[Mapping[str, np.ndarray]],
    timeout_s: float = 3600.0,
) -> list[dict[str, np.ndarray]]:
    """Outputs by name for each sample, as the library computes them; RuntimeError where it
    cannot be run."""
    outcome = run_samples(interface, program, runner, board, samples, timeout_s)
    if outcome.error:
        raise RuntimeError(outcome.error)
    names = [t.name for t in interface.outputs]
    flat = _split(
        outcome.outputs["out.bin"], [(t, "nchw") for t in interface.outputs] * len(samples)
    )
    return [
        dict(zip(names, flat[i : i + len(names)], strict=True))
        for i in range(0, len(flat), len(names))
    ]


def check_case(
    interface: Interface,
    program: Path,
    runner: Runner,
    board: Board,
    reference: Reference,
    case: Case,
    timeout_s: float = 600.0,
) -> CaseResult:
    """Run one case on the board and compare. With a reference that has extra tensors, layer by
    layer too."""
    layers = bool(reference.extra)
    outcome = run_samples(interface, program, runner, board, [case.inputs], timeout_s, layers)
    if outcome.error:
        return CaseResult(case.name, {}, False, error=outcome.error)
    expected = reference.run(case.inputs)
    got = _split(outcome.outputs["out.bin"], [(t, "nchw") for t in interface.outputs])
    # by position: an output that is also an input has another name in the library
    named = zip(interface.outputs, expected.values(), strict=False)
    targets = {**{t.name: v for t, v in named}, **(case.expected or {})}
    diffs = {
        t.name: difference(y, targets[t.name]) for t, y in zip(interface.outputs, got, strict=True)
    }
    good = all(interface.passes(diffs[t.name], t.dtype) for t in interface.outputs)
    known = {**case.inputs, **expected}  # a converted input must still be the input
    results = _layers(interface, outcome.outputs["trace.bin"], known) if layers else ()
    return CaseResult(case.name, diffs, good, results)


def check_layers(
    interface: Interface,
    program: Path,
    runner: Runner,
    board: Board,
    inputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    timeout_s: float = 600.0,
) -> tuple[LayerResult, ...]:
    """Run on the board and compare every step's result with `expected`, by tensor; nothing where
    the program does not run."""
    outcome = run_samples(interface, program, runner, board, [inputs], timeout_s, trace=True)
    return () if outcome.error else _layers(interface, outcome.outputs["trace.bin"], expected)


def _split(data: bytes, tensors: Sequence[tuple[Tensor, str]]) -> list[np.ndarray]:
    """Raw tensors one after another -> arrays in ONNX order."""
    out, at = [], 0
    for t, layout in tensors:
        flat = np.frombuffer(data, t.dtype.numpy, t.size, at)
        at += t.bytes
        inverse = np.argsort(permutation(layout, len(t.shape)))
        out.append(flat.reshape(memory_shape(t.shape, layout)).transpose(inverse))
    return out


def _layers(
    interface: Interface, data: bytes, expected: Mapping[str, np.ndarray]
) -> tuple[LayerResult, ...]:
    values = _split(data, [(t.tensor, t.layout) for t in interface.traces])
    last = {
        t.tensor.name: i for i, t in enumerate(interface.traces)
    }  # a concatenation is whole after its last part
    out = []
    for i, (trace, y) in enumerate(zip(interface.traces, values, strict=True)):
        name = trace.tensor.name
        if last[name] != i:
            continue
        if name not in expected or expected[name].size != y.size:
            out.append(
                LayerResult(trace.layer, name, None, True, "the ONNX file has no such tensor")
            )
            continue
        d = difference(y, expected[name])
        out.append(LayerResult(trace.layer, name, d, interface.passes(d, trace.tensor.dtype)))
    return tuple(out)


def load_cases(path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Case]:
    """User data: .npy (one input), .npz (inputs by name; a leading axis more than the input's
    means many cases), or a folder in ONNX test-data form (input_N.pb, output_N.pb, or
    test_data_set_N folders of them)."""
    if path.is_dir():
        folders = sorted(p for p in path.glob("test_data_set_*") if p.is_dir()) or [path]
        return [_onnx_case(folder, inputs, outputs) for folder in folders]
    where = str(path)
    if not path.is_file():
        raise CodegenError(
            where,
            "no such file or folder",
            ".npy, .npz or an ONNX test-data folder",
            "check the path",
        )
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = (
            {inputs[0].name: loaded}
            if isinstance(loaded, np.ndarray)
            else {k: loaded[k] for k in loaded.files}
        )
    except (ValueError, OSError, EOFError) as e:
        raise CodegenError(
            where, f"cannot be read ({e})", "a .npy or .npz of numbers", "save it again with numpy"
        ) from None
    missing = [t.name for t in inputs if t.name not in arrays]
    if missing:
        raise CodegenError(
            where,
            f"no array for input {missing[0]!r}",
            f"arrays: {', '.join(arrays)}",
            "name the arrays after the model's inputs",
        )
    count = {_count(where, arrays[t.name], t) for t in inputs}
    if len(count) > 1:
        raise CodegenError(
            where,
            f"inputs have {sorted(count)} samples",
            "the same number for each",
            "fix the data",
        )
    n = count.pop()
    many = {t.name: arrays[t.name].reshape(n, *t.shape) for t in inputs}
    return [
        Case(f"{path.name}[{i}]", {t.name: many[t.name][i].astype(t.dtype.numpy) for t in inputs})
        for i in range(n)
    ]


def _count(where: str, array: np.ndarray, t: Tensor) -> int:
    """How many samples of the input an array holds: exactly one, or a leading axis of them."""
    if array.shape == t.shape:
        return 1
    rest = array.shape[1:]
    if rest in (t.shape, t.shape[1:] if t.shape[:1] == (1,) else None) and array.shape[0] > 0:
        return array.shape[0]
    raise CodegenError(
        where,
        f"array for {t.name!r} has shape {array.shape}",
        f"{t.shape}, or N of them",
        "reshape the data",
    )


def _onnx_case(folder: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Case:
    def read(kind: str, tensors: Sequence[Tensor]) -> dict[str, np.ndarray]:
        found = {}
        for i, t in enumerate(tensors):
            path = folder / f"{kind}_{i}.pb"
            if not path.is_file():
                continue
            value = read_tensor(path)
            if value.size != t.size:
                raise CodegenError(
                    str(path), f"shape {value.shape}", f"{t.shape} for {t.name!r}", "check the data"
                )
            found[t.name] = value.reshape(t.shape).astype(t.dtype.numpy)
        return found

    given = read("input", inputs)
    missing = [t.name for t in inputs if t.name not in given]
    if missing:
        raise CodegenError(
            str(folder),
            f"no input_N.pb for {missing[0]!r}",
            f"{len(inputs)} input(s), in order",
            "name a folder in ONNX test-data form",
        )
    return Case(folder.name, given, read("output", outputs) or None)
