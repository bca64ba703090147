"""What tests of other engines share."""

import shutil
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.toolchain import find_qemu

ROOT = Path(__file__).resolve().parent.parent
KWS = ROOT / "examples" / "models" / "mlperf_kws_dscnn.onnx"
A57 = load_board("jetson-nano-cpu")
CROSS = shutil.which("aarch64-linux-gnu-gcc")
needs_board = pytest.mark.skipif(
    not (CROSS and find_qemu()), reason="no aarch64-linux-gnu-gcc or no qemu-aarch64 here"
)


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
