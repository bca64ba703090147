"""onnx2c: a generator of scalar C. No package registry has it, so that it must be on the PATH."""

import os
import shutil
from pathlib import Path

from codegen.board import Board
from codegen.footprint import sections
from codegen.peers.base import Engine, Network, PeerError, Prepared, run_tool
from codegen.peers.c_program import compile_object, link_network

PROGRAM = "onnx2c"


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    if shutil.which(PROGRAM) is None:
        raise PeerError("onnx2c is in no package registry, and not on the PATH of this machine")
    (folder / "model.onnx").write_bytes(network.model)
    text = run_tool((PROGRAM, "model.onnx"), folder, dict(os.environ), PROGRAM)
    (folder / "model.c").write_text(text)
    made = compile_object(folder / "model.c", folder / "model.o", board, ("-Dentry=model",))
    sizes = sections([made])
    return Prepared(
        program=link_network(made, network, board, folder),
        binary_bytes=sizes.rom,
        resident_bytes=sizes.rodata + sizes.data + sizes.bss,
    )


_NO_INT8 = "onnx2c has no calibration; its -quantize is a linear scaling in an alpha state"
ENGINE = Engine("onnx2c", "PATH", ("f32",), _prepare, {"i8": _NO_INT8})
