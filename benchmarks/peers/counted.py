"""Runners that keep what an execution counted, by the content of everything it depends on: when the
cycle model changes, a sweep needs no second execution."""

import gzip
import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import asdict
from pathlib import Path

from codegen.board import Board
from codegen.models.archive import cache_dir
from codegen.models.fetch import write_atomically
from codegen.run import Job, Outcome
from codegen.run.qemu import QemuRunner
from codegen.run.virtual import WHOLE
from codegen.run.virtual.counts import CountError, parse_counts
from codegen.run.virtual.errors import AnalysisError
from codegen.run.virtual.model import price
from codegen.run.virtual.plugin import plugin_arguments, plugin_path
from codegen.run.virtual.runner import count, missing
from codegen.toolchain import find_llvm, find_qemu


class Virtual:
    """As codegen's runner of this name, for programs that mark one whole inference."""

    name = "virtual"

    def run(self, job: Job, board: Board) -> Outcome:
        problem = missing(board)
        if problem:
            return Outcome(error=problem)
        plugin = (plugin_path(str(find_qemu())).name, plugin_arguments(board, ""))
        outcome, text = _kept(job, board, plugin, lambda: count(job, board))
        if outcome.error:
            return outcome
        tools = (str(find_llvm(t)) for t in ("llvm-mc", "llvm-mca"))
        try:
            cycles = price(parse_counts(text), board.cycle_model, *tools)[WHOLE].cycles
        except (CountError, AnalysisError) as e:
            return Outcome(error=str(e))
        more = {"cycles": cycles, "ms": cycles * 1e3 / board.clock_hz}
        return Outcome({**outcome.report, **more}, outcome.outputs)


class Qemu:
    """For outputs and memory."""

    name = "qemu"

    def run(self, job: Job, board: Board) -> Outcome:
        return _kept(job, board, (), lambda: (QemuRunner().run(job, board), ""))[0]


def _kept(job: Job, board: Board, plugin: tuple, run) -> tuple[Outcome, str]:
    """The outcome and text of an earlier, equal job; failures are not kept."""
    file = cache_dir() / "virtual" / "peers" / f"{_key(job, board, plugin)}.gz"
    if file.is_file():
        raw = json.loads(gzip.decompress(file.read_bytes()))
        files = {n: b64decode(x) for n, x in raw["outcome"].pop("outputs").items()}
        return Outcome(**raw["outcome"], outputs=files), raw["text"]
    outcome, text = run()
    if not outcome.error:
        files = {n: b64encode(x).decode() for n, x in outcome.outputs.items()}
        raw = {"outcome": {**asdict(outcome), "outputs": files}, "text": text}
        write_atomically(file, gzip.compress(json.dumps(raw).encode(), 6, mtime=0))
    return outcome, text


def _key(job: Job, board: Board, plugin: tuple) -> str:
    """A sysroot's and the plugin's names are hashes of their contents."""
    files = {"program": _digest(job.program.read_bytes())}
    files |= {n: _digest(x) for n, x in job.inputs.items()}
    root = Path(job.root).name if job.root else ""
    parts = (plugin, root, board.qemu_cpu, job.args, sorted(job.env.items()), sorted(files.items()))
    return _digest(repr(parts).encode())[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
