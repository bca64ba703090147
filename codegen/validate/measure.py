"""ncnn on one of its benchmark networks under a virtual board -> what the cycle model is made of.

The plugin's counts are kept in the cache by the content of everything that they depend on, so that
the model can be fitted again and again without running qemu.
"""

import gzip
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.models.archive import cache_dir
from codegen.peers.sysroot import library_path, python, sysroot
from codegen.peers.wheels import NCNN, NUMPY
from codegen.run import Job
from codegen.run.virtual import WHOLE
from codegen.run.virtual.counts import CountError, Counts, parse_counts
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.model import Work, works
from codegen.run.virtual.plugin import PluginError, plugin_arguments, plugin_path
from codegen.run.virtual.runner import count, missing
from codegen.toolchain import find_llvm, find_qemu
from codegen.validate.published import Network

PARAMS_VARIABLE = "CODEGEN_NCNN_PARAMS"
_GUEST = Path(__file__).parent.parent / "peers" / "guest"
_SCRIPTS = ("ncnn_param.py", "board.py")
_WHEELS = (NCNN, NUMPY)
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Measured:
    """`work` is that of one inference; None with an `error` where there is none."""

    work: Work | None = None
    error: str = ""


def find_params(folder: Path | None) -> Path:
    """The folder with ncnn's *.param files: given, or $CODEGEN_NCNN_PARAMS."""
    named = os.environ.get(PARAMS_VARIABLE)
    found = folder or (Path(named) if named else None)
    if found is None or not found.is_dir():
        raise CodegenError(
            "--params",
            f"{found} is no folder" if found else "not given",
            "a folder with ncnn's benchmark definitions (benchmark/*.param of its sources)",
            f"give --params DIR or set {PARAMS_VARIABLE}",
        )
    return found


def read_param(folder: Path, network: Network) -> bytes:
    """The network's definition; CodegenError where it is not the one of the table."""
    path = folder / network.file
    try:
        data = path.read_bytes()
    except OSError as e:
        raise CodegenError(
            str(path), e.strerror or str(e), "every network of the table is needed",
            "complete the folder, or leave the network out with --network",
        ) from None  # fmt: skip
    found = hashlib.sha256(data).hexdigest()
    if found != network.sha256:
        raise CodegenError(
            str(path), f"sha256 {found}", f"the published figures are of {network.sha256}",
            "take the file from ncnn's sources",
        )  # fmt: skip
    return data


def measure(network: Network, param: bytes, board: Board) -> Measured:
    """Count (or read what was counted), then time the traces. A failing run is a value."""
    problem = missing(board)
    if problem:
        return Measured(error=problem)
    try:
        counts = _counts(network, param, board)
        found = works(counts, board.cycle_model, str(find_llvm("llvm-mc")),
                      str(find_llvm("llvm-mca")))  # fmt: skip
    except (PluginError, CountError, AnalysisError) as e:
        return Measured(error=str(e))
    return Measured(found[WHOLE])


def _counts(network: Network, param: bytes, board: Board) -> Counts:
    root = sysroot(board, _WHEELS)
    files = {n: (_GUEST / n).read_bytes() for n in _SCRIPTS} | {network.file: param}
    env = {"PYTHONHOME": "/usr", "PYTHONPATH": ":".join(library_path(_WHEELS)),
           "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    job = Job(python(root), (_SCRIPTS[0], "0", network.file), files, timeout_s=_TIMEOUT_S,
              root=root, env=env)  # fmt: skip
    kept = cache_dir() / "virtual" / "counts" / f"{_key(job, board)}.gz"
    if kept.is_file():
        return parse_counts(gzip.decompress(kept.read_bytes()).decode())
    outcome, text = count(job, board)
    if outcome.error:
        raise CountError(outcome.error)
    counts = parse_counts(text)
    if WHOLE not in counts.regions:
        raise CountError("the program marked no region")
    _keep(kept, gzip.compress(text.encode(), 6, mtime=0))
    return counts


def _key(job: Job, board: Board) -> str:
    """Of everything that the counts depend on. The sysroot's and plugin's names are hashes of their
    contents."""
    parts = (
        job.root.name, plugin_path(str(find_qemu())).name, board.qemu_cpu, job.args,
        plugin_arguments(board, ""), sorted(job.env.items()),
        [(n, hashlib.sha256(x).hexdigest()) for n, x in sorted(job.inputs.items())],
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _keep(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".partial-")
    with os.fdopen(handle, "wb") as f:
        f.write(data)
    os.replace(name, file)
