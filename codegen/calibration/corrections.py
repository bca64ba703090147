"""What makes up for the few bits of weights, as calibration.json keeps it."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from codegen.calibration.weights import largest_code
from codegen.errors import CodegenError


@dataclass(frozen=True)
class Corrections:
    """`means`: of each channel of the tensors that products read. `rounding`: by node and width of
    its weights in bits, how its codes [M, ...] differ from the nearest ones, packed."""

    means: Mapping[str, Sequence[float]] = field(default_factory=dict)
    rounding: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def rounded(self, node: str, bits: int, nearest: np.ndarray) -> np.ndarray:
        """The codes that are better for a node than the nearest, or else these."""
        packed = self.rounding.get(node, {}).get(bits)
        if packed is None:
            return nearest
        difference = unpack(packed)
        if difference.size != nearest.size:
            raise CodegenError(
                "calibration", f"rounding of node {node!r} is of {difference.size} weights",
                f"the model's has {nearest.size}", "calibrate again",
            )  # fmt: skip
        codes = nearest + difference.reshape(nearest.shape)  # wraps as the difference did
        return np.clip(codes, -largest_code(bits), largest_code(bits))


NONE = Corrections()


def pack(difference: np.ndarray) -> str:
    """int8 as text: base64 of zlib. Most are -1, 0 or 1, without pattern: two bits each."""
    squeeze = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    packed = squeeze.compress(difference.astype(np.int8).tobytes()) + squeeze.flush()
    return base64.b64encode(packed).decode()


def unpack(text: str) -> np.ndarray:
    """int8 [N]; ValueError where the text is nothing that `pack` gave."""
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.int8)
    except zlib.error as e:
        raise ValueError(str(e)) from None
