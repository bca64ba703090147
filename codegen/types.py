"""Element types: one table from which numpy, C and ONNX spellings derive."""

from enum import Enum

import numpy as np

WIDTHS = (8, 7, 6, 5, 4)  # of weights in int8, bits


class DType(Enum):
    """Element type of a tensor; the value is the short name used in kernel rows and plans."""

    F32 = "f32"
    F64 = "f64"
    F16 = "f16"
    I8 = "i8"
    U8 = "u8"
    I16 = "i16"
    U16 = "u16"
    I32 = "i32"
    U32 = "u32"
    I64 = "i64"
    U64 = "u64"
    BOOL = "bool"

    @property
    def numpy(self) -> np.dtype:
        return _NUMPY[self]

    @property
    def c(self) -> str:
        """C type of one element; `bool` tensors are bytes, as in ONNX."""
        return _C[self]

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @staticmethod
    def from_onnx(code: int) -> "DType":
        """The DType of an ONNX TensorProto.DataType; KeyError for types that are not here."""
        return _FROM_ONNX[code]

    @staticmethod
    def of(dtype: np.dtype) -> "DType":
        """The DType of a numpy dtype; KeyError where there is none."""
        return _FROM_NUMPY[np.dtype(dtype)]


_NUMPY = {
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.F16: np.dtype(np.float16),
    DType.I8: np.dtype(np.int8),
    DType.U8: np.dtype(np.uint8),
    DType.I16: np.dtype(np.int16),
    DType.U16: np.dtype(np.uint16),
    DType.I32: np.dtype(np.int32),
    DType.U32: np.dtype(np.uint32),
    DType.I64: np.dtype(np.int64),
    DType.U64: np.dtype(np.uint64),
    DType.BOOL: np.dtype(np.bool_),
}
_FROM_NUMPY = {v: k for k, v in _NUMPY.items()}
_C = {
    DType.F32: "float",
    DType.F64: "double",
    DType.F16: "cg_f16",
    DType.I8: "int8_t",
    DType.U8: "uint8_t",
    DType.I16: "int16_t",
    DType.U16: "uint16_t",
    DType.I32: "int32_t",
    DType.U32: "uint32_t",
    DType.I64: "int64_t",
    DType.U64: "uint64_t",
    DType.BOOL: "uint8_t",
}
# TensorProto.DataType of the ONNX specification
_FROM_ONNX = {
    1: DType.F32,
    2: DType.U8,
    3: DType.I8,
    4: DType.U16,
    5: DType.I16,
    6: DType.I32,
    7: DType.I64,
    9: DType.BOOL,
    10: DType.F16,
    11: DType.F64,
    12: DType.U32,
    13: DType.U64,
}
