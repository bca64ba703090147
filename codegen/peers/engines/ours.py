"""codegen itself, by the plan that it makes without a search: the fastest one, and the fastest one
whose packed weights are hardly larger than the network's. In int8 wherever that can be, calibrated
as `codegen calibrate` does without options."""

import hashlib
import tempfile
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from codegen import __version__
from codegen.board import Board
from codegen.build import compile_library
from codegen.calibration.collect import Settings, calibrate
from codegen.calibration.data import open_data
from codegen.compare import TOLERANCE
from codegen.exactness import MOST_CAREFUL
from codegen.footprint import sections
from codegen.peers.base import Engine, Network, PeerError, Prepared
from codegen.pipeline import Generated, generate, load_graph
from codegen.sources import write
from codegen.toolchain import find_toolchain


def _prepare(
    network: Network, board: Board, dtype: str, folder: Path, **options: Any
) -> Prepared:
    generated = _generate(network, board, dtype, folder, **options)
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


def _generate(
    network: Network, board: Board, dtype: str, folder: Path, **options: Any
) -> Generated:
    model = folder / f"{network.name}.onnx"
    model.write_bytes(network.model)
    if dtype == "i8":
        options["calibration"] = folder / "calibration.json"
        options["calibration"].write_text(_calibration(network))
    return generate(model, board, **options)


@lru_cache(maxsize=1)
def _calibration(network: Network) -> str:
    """The ranges over the network's samples but the first; the same for all boards."""
    with tempfile.TemporaryDirectory(prefix="codegen-peer-") as name:
        model, data = Path(name) / "model.onnx", Path(name) / "samples.npz"
        model.write_bytes(network.model)
        names = network.graph.inputs
        np.savez(data, **{t: np.stack([s[t] for s in network.samples[1:]]) for t in names})
        graph = load_graph(model)
        opened = open_data([data], [graph.tensors[t] for t in names])
        return calibrate(model, graph, opened, Settings()).to_json()


def _code(network: Network, board: Board, dtype: str, **options: Any) -> str:
    """Digest of the generated files: kernels and plans change between versions."""
    with tempfile.TemporaryDirectory(prefix="codegen-peer-") as folder:
        files = _generate(network, board, dtype, Path(folder), **options).sources.files
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()[:12]


_SMALL = "in int8 the default plan's packed weights are hardly larger than the network's"


def _engine(name: str, lacks: Mapping[str, str], **options: Any) -> Engine:
    """With more and more careful plans behind it, as `build` has."""
    dtypes = tuple(d for d in ("f32", "i8") if d not in lacks)
    engine = None
    for careful in range(MOST_CAREFUL, -1, -1):
        made = {"careful": careful, **options}
        engine = Engine(name, __version__, dtypes, partial(_prepare, **made), lacks,
                        tolerance=TOLERANCE["f32"], careful=engine,
                        code=partial(_code, **made))  # fmt: skip
    return engine


ENGINE = _engine("codegen", {})
COMPACT = _engine("codegen-compact", {"i8": _SMALL}, max_weights="1.1x")
