"""What a plan becomes: kernel calls (steps) on values, a value being a tensor in one layout, and
views, values that are only another name for (part of) another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from codegen.graph import Tensor
from codegen.kernels import Kernel
from codegen.ranges import Part


@dataclass(frozen=True)
class Value:
    """A tensor in one layout. `key` is the tensor's name, with "@layout" for a converted copy."""

    key: str
    tensor: Tensor
    layout: str

    @property
    def bytes(self) -> int:
        return self.tensor.bytes


@dataclass(frozen=True)
class View:
    """Value `of`, `offset` elements in; `pitch` > 0: pixels lie that many elements apart."""

    of: str
    offset: int = 0
    pitch: int = 0


@dataclass(frozen=True)
class Weight:
    """A constant array of the library, in the form its kernel reads."""

    symbol: str
    array: np.ndarray
    node: str


@dataclass(frozen=True)
class Step:
    """One kernel call. `args` are value keys or, for entries "&symbol", weights, in the order of
    the C parameters, before residual, outputs and scratch; `offset` is added (elements) to the
    first output's address. `parts`: the same as several calls that may run at the same time."""

    name: str
    op: str
    kernel: Kernel
    dims: Mapping[str, Any]
    args: tuple[str, ...]
    outputs: tuple[str, ...]
    residual: str = ""
    scratch_bytes: int = 0
    offset: int = 0
    parts: tuple[Part, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(a for a in (*self.args, self.residual) if a and not a.startswith("&"))


@dataclass(frozen=True)
class Program:
    """Steps in some valid order, values by key, views among them, and the network's own inputs
    and outputs."""

    steps: tuple[Step, ...]
    values: Mapping[str, Value]
    views: Mapping[str, View]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[Weight, ...]
    conversions: tuple[Mapping[str, str], ...] = field(default_factory=tuple)

    def root(self, key: str) -> tuple[str, int, int]:
        """(value that owns the memory, offset in elements, pitch) of a value."""
        offset, pitch = 0, 0
        while key in self.views:
            view = self.views[key]
            offset, pitch, key = offset + view.offset, pitch or view.pitch, view.of
        return key, offset, pitch
