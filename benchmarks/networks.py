"""Networks by name."""

from pathlib import Path

from codegen.models.fetch import fetch
from codegen.resources import examples_dir

_OURS = ("fashion_dscnn",)  # trained by benchmarks/train_fashion.py


def path_of(name: str) -> Path:
    """The file: that of the repository where no package has it, else fetched."""
    return examples_dir() / "models" / f"{name}.onnx" if name in _OURS else fetch(name)
