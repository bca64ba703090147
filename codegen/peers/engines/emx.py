"""emx-onnx-cgen: another generator, of scalar C."""

import os
import sys
from pathlib import Path

from codegen.board import Board
from codegen.footprint import sections
from codegen.peers.base import Engine, Network, Prepared, run_tool
from codegen.peers.c_program import compile_object, link_network
from codegen.peers.wheels import EMX, EMX_NEEDS, host_wheel


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    (folder / "model.onnx").write_bytes(network.model)
    path = os.pathsep.join(str(host_wheel(p)) for p in (EMX, *EMX_NEEDS))
    env = {**os.environ, "PYTHONPATH": path}
    run_tool((sys.executable, "-m", "emx_onnx_cgen", "compile", "--model-name", "model",
              "model.onnx", "model.c"), folder, env, "emx-onnx-cgen")  # fmt: skip
    weights = folder / "model.bin"
    files = {"model.bin": weights.read_bytes()} if weights.is_file() else {}
    made = compile_object(folder / "model.c", folder / "model.o", board)
    program = link_network(made, network, board, folder, bool(files))
    sizes = sections([made])
    return Prepared(
        files, program=program, binary_bytes=sizes.rom + sum(map(len, files.values())),
        resident_bytes=sizes.rodata + sizes.data + sizes.bss,
    )  # fmt: skip


_NO_INT8 = "emx-onnx-cgen has no tool that quantises a network"
ENGINE = Engine("emx", EMX.version, ("f32",), _prepare, {"i8": _NO_INT8})
