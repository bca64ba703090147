"""codegen itself, by the plan that it makes without a search: the fastest one, and the fastest one
whose packed weights are hardly larger than the network's."""

import hashlib
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from codegen import __version__
from codegen.board import Board
from codegen.build import compile_library
from codegen.compare import TOLERANCE
from codegen.exactness import MOST_CAREFUL
from codegen.footprint import sections
from codegen.peers.base import Engine, Network, PeerError, Prepared
from codegen.pipeline import Generated, generate
from codegen.sources import write
from codegen.toolchain import find_toolchain


def _prepare(
    network: Network, board: Board, dtype: str, folder: Path, **options: Any
) -> Prepared:
    generated = _generate(network, board, folder, **options)
    write(generated.sources, folder)
    binary = compile_library(generated.sources, folder, find_toolchain(board))
    if binary.error:
        raise PeerError(f"does not compile: {binary.error.splitlines()[-1][:300]}")
    sizes = sections(binary.objects)
    ports = (*generated.sources.inputs, *generated.sources.outputs)
    weights = sum(w.array.nbytes for w in generated.schedule.program.weights)
    memory = (
        generated.schedule.arena_bytes
        + sum(p.tensor.bytes for p in ports)
        + weights
        + (binary.stack_bytes or 0)
    )
    return Prepared(
        program=binary.bench,
        checker=binary.verify,
        binary_bytes=sizes.rom,
        peak_bytes=memory,
        packed_bytes=weights,
    )


def _generate(network: Network, board: Board, folder: Path, **options: Any) -> Generated:
    model = folder / f"{network.name}.onnx"
    model.write_bytes(network.model)
    return generate(model, board, **options)


def _code(network: Network, board: Board, dtype: str, **options: Any) -> str:
    """Digest of the generated files: kernels and plans change between versions."""
    with tempfile.TemporaryDirectory(prefix="codegen-peer-") as folder:
        files = _generate(network, board, Path(folder), **options).sources.files
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()[:12]


_NO_INT8 = "codegen generates no int8 code yet"


def _engine(name: str, **options: Any) -> Engine:
    """With more and more careful plans behind it, as `build` has."""
    engine = None
    for careful in range(MOST_CAREFUL, -1, -1):
        made = {"careful": careful, **options}
        engine = Engine(name, __version__, ("f32",), partial(_prepare, **made),
                        {"i8": _NO_INT8}, tolerance=TOLERANCE["f32"], careful=engine,
                        code=partial(_code, **made))  # fmt: skip
    return engine


ENGINE = _engine("codegen")
COMPACT = _engine("codegen-compact", max_weights="1.1x")
