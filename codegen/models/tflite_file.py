"""The part of a TensorFlow Lite file that float networks need, read straight from the flatbuffer.

A flatbuffer table starts with the distance back to its vtable; the vtable lists, per field number,
where in the table the field is (0: absent). Field numbers below are those of the published schema
(`schema.fbs`, version 3).
"""

import struct
from dataclasses import dataclass

import numpy as np

from codegen.errors import CodegenError

IDENTIFIER = b"TFL3"
OPERATORS = {
    0: "ADD",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    17: "MAX_POOL_2D",
    19: "RELU",
    22: "RESHAPE",
    34: "PAD",
}
ELEMENT_TYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 2: np.dtype("<i4")}


class Table:
    """One flatbuffer table; every getter takes a field number and has the schema's default for an
    absent field."""

    def __init__(self, data: bytes, position: int):
        self._data, self._position = data, position
        self._vtable = position - struct.unpack_from("<i", data, position)[0]

    @classmethod
    def root(cls, data: bytes) -> "Table":
        return cls(data, _offset(data, 0))

    def scalar(self, field: int, kind: str, default: int = 0) -> int:
        """A number; `kind` is its struct letter (b, B, i, I)."""
        at = self._field(field)
        return struct.unpack_from(f"<{kind}", self._data, at)[0] if at else default

    def table(self, field: int) -> "Table":
        at = self._field(field)
        return Table(self._data, at + _offset(self._data, at))

    def tables(self, field: int) -> list["Table"]:
        start, count = self._vector(field)
        items = range(start, start + 4 * count, 4)
        return [Table(self._data, at + _offset(self._data, at)) for at in items]

    def array(self, field: int, dtype: str) -> np.ndarray:
        start, count = self._vector(field)
        return np.frombuffer(self._data, dtype, count, start)

    def text(self, field: int) -> str:
        return self.array(field, "u1").tobytes().decode()

    def _field(self, field: int) -> int:
        """Position of a field's value, 0 where it is absent."""
        entry = 4 + 2 * field
        (size,) = struct.unpack_from("<H", self._data, self._vtable)
        if entry >= size:
            return 0
        (distance,) = struct.unpack_from("<H", self._data, self._vtable + entry)
        return self._position + distance if distance else 0

    def _vector(self, field: int) -> tuple[int, int]:
        """(position of the first element, number of elements)."""
        at = self._field(field)
        if not at:
            return 0, 0
        start = at + _offset(self._data, at)
        return start + 4, _offset(self._data, start)


def _offset(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]


@dataclass(frozen=True)
class Tensor:
    """`value` is None for a tensor that an operator computes."""

    name: str
    shape: tuple[int, ...]
    value: np.ndarray | None


@dataclass(frozen=True)
class Operator:
    """Tensor numbers of inputs and outputs; `options` is the table of this operator's own
    schema."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table


@dataclass(frozen=True)
class TfliteGraph:
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


def read(data: bytes, where: str) -> TfliteGraph:
    """The file's one subgraph. CodegenError for another format, type or operator; `where` names the
    file."""
    if data[4:8] != IDENTIFIER:
        raise CodegenError(
            where,
            f"file identifier {data[4:8]!r}",
            f"{IDENTIFIER!r} is expected",
            "give a TensorFlow Lite file",
        )
    model = Table.root(data)
    kinds = [_operator_kind(code, where) for code in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    return TfliteGraph(
        tensors=tuple(_tensor(t, buffers, where) for t in graph.tables(0)),
        inputs=_numbers(graph, 1),
        outputs=_numbers(graph, 2),
        operators=tuple(
            Operator(kinds[op.scalar(0, "I")], _numbers(op, 1), _numbers(op, 2), op.table(4))
            for op in graph.tables(3)
        ),
    )


def _operator_kind(code: Table, where: str) -> str:
    # The byte field is the old one; newer files put 127 there and the number into the wide field.
    number = max(code.scalar(0, "b"), code.scalar(3, "i"))
    if number not in OPERATORS:
        raise CodegenError(
            where,
            f"operator number {number}",
            f"supported: {', '.join(OPERATORS.values())}",
            "add it to codegen/models/tflite.py or export the network to ONNX",
        )
    return OPERATORS[number]


def _tensor(table: Table, buffers: list[Table], where: str) -> Tensor:
    kind = table.scalar(1, "b")
    if kind not in ELEMENT_TYPES:
        raise CodegenError(
            where,
            f"element type number {kind} of tensor '{table.text(3)}'",
            "float32, float16 and int32 are supported",
            "convert the network without quantisation",
        )
    shape = _numbers(table, 0)
    raw = buffers[table.scalar(2, "I")].array(0, "u1")
    value = raw.view(ELEMENT_TYPES[kind]).reshape(shape) if raw.size else None
    return Tensor(table.text(3), shape, value)


def _numbers(table: Table, field: int) -> tuple[int, ...]:
    return tuple(table.array(field, "<i4").tolist())
