"""im2col + OpenBLAS: what a generator without kernels of its own would emit."""

from pathlib import Path

from codegen.board import Board
from codegen.footprint import sections
from codegen.peers.base import Engine, Network, PeerError, Prepared
from codegen.peers.blas_writer import write_net
from codegen.peers.c_program import compile_object, link, peer_source
from codegen.peers.sysroot import sysroot

VERSION = "0.3.21"  # of Debian 12; the row tells the one that was linked
# OpenBLAS's names of kernel sets; it has one for the in-order cores and one for the others.
_IN_ORDER = ("cortex-a53", "cortex-a55")


def _prepare(network: Network, board: Board, dtype: str, folder: Path) -> Prepared:
    data = write_net(network.graph)
    usr = sysroot(board) / "usr"
    libraries = sorted(usr.glob("lib/aarch64-linux-gnu/openblas-serial/libopenblas.a"))
    headers = sorted(usr.glob("include/aarch64-linux-gnu/openblas-serial/cblas.h"))
    if not libraries or not headers:
        raise PeerError("this Debian's libopenblas-serial-dev has no static library")
    flags = ("-I", str(headers[0].parent))
    made = compile_object(peer_source("im2col_blas.c"), folder / "im2col.o", board, flags)
    program = link([made], folder / "im2col", board, [str(libraries[0])])
    kind = "CORTEXA53" if board.core in _IN_ORDER else "CORTEXA57"
    return Prepared(
        {"net.bin": data}, program=program, env={"OPENBLAS_CORETYPE": kind},
        binary_bytes=sections([program]).rom + len(data),
    )  # fmt: skip


_NO_INT8 = "OpenBLAS has no product of int8 matrices"
ENGINE = Engine("blas", VERSION, ("f32",), _prepare, {"i8": _NO_INT8})
