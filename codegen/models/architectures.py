"""Well-known architectures with seeded random weights: for speed and operator coverage, not for
accuracy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files

import onnx

from codegen.errors import CodegenError
from codegen.models.seeded import reseed
from codegen.models.topologies import TOPOLOGIES

# In the onnx package: real topologies whose parameters are one constant.
LIGHT = "backend/test/data/light"


@dataclass(frozen=True)
class Architecture:
    """`topology` makes the network without weights."""

    name: str
    source: str
    topology: Callable[[], onnx.ModelProto]
    input_shape: tuple[int, ...] = (1, 3, 224, 224)


def _light(name: str) -> Architecture:
    return Architecture(name, "onnx package", lambda: _load_light(name))


def _load_light(name: str) -> onnx.ModelProto:
    file = files("onnx").joinpath(LIGHT, f"{name}.onnx")
    if not file.is_file():
        raise CodegenError(
            f"architecture {name}",
            f"the installed onnx {onnx.__version__} has no {LIGHT}/{name}.onnx",
            "the topology is read from the onnx package",
            "install onnx as a wheel",
        )
    return onnx.load_from_string(file.read_bytes())


_LIGHT_NAMES = (
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_inception_v1",
    "light_inception_v2",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "light_vgg19",
    "light_zfnet512",
)

ARCHITECTURES: Mapping[str, Architecture] = {
    **{name: _light(name) for name in _LIGHT_NAMES},
    **{name: Architecture(name, "written here", topology) for name, topology in TOPOLOGIES.items()},
}


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """The architecture of that name with weights drawn from `seed`; equal arguments give equal
    bytes.

    Meant for standard normal inputs: activations then stay near one and the softmax is neither flat
    nor one-hot. CodegenError for an unknown name.
    """
    if name not in ARCHITECTURES:
        raise CodegenError(
            "codegen models",
            f"unknown architecture '{name}'",
            f"known: {', '.join(ARCHITECTURES)}",
            "choose one of these",
        )
    return reseed(ARCHITECTURES[name].topology(), seed)
