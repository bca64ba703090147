"""Time of traces on an out-of-order core, from llvm-mca's tables."""

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from codegen.models.archive import cache_dir
from codegen.run.virtual.errors import AnalysisError

Listing = tuple[str, ...]

ITERATIONS = 100
_BATCH = 40
_TIMEOUT_S = 600
_WRITE_BACK = re.compile(
    r"^(?P<store>st\w+ .*\[)(?P<base>x\d+|sp)(?:, (?P<pre>#-?\w+)\]!|\], (?P<post>#-?\w+|x\d+))$"
)


def split_stores(listing: Sequence[str]) -> Listing:
    """`str q0, [x1], #16` -> the store and an add: llvm-mca else lets the pointer wait for the
    data."""
    out: list[str] = []
    for text in listing:
        m = _WRITE_BACK.match(text)
        if not m:
            out.append(text)
            continue
        base = m["base"]
        store, step = f"{m['store']}{base}]", f"add {base}, {base}, {m['pre'] or m['post']}"
        step = step.replace("add", "sub", 1).replace("#-", "#") if "#-" in step else step
        out += [step, store] if m["pre"] else [store, step]
    return tuple(out)


def cycles(listings: Sequence[Listing], cpu: str, llvm_mca: str) -> list[float]:
    """Cycles of one pass through each listing in a steady state; results are kept on disk."""
    texts = [split_stores(x) for x in listings]
    files = [_file(x, cpu, llvm_version(llvm_mca)) for x in texts]
    found = [_read(f) for f in files]
    missing = list({files[i]: texts[i] for i in range(len(texts)) if found[i] is None}.items())
    fresh: dict[Path, float] = {}
    for i in range(0, len(missing), _BATCH):
        part = missing[i : i + _BATCH]
        for (file, _), value in zip(part, _analyse([t for _, t in part], cpu, llvm_mca),
                                    strict=True):  # fmt: skip
            fresh[file] = value
            _write(file, value)
    return [fresh[f] if v is None else v for f, v in zip(files, found, strict=True)]


def _analyse(texts: Sequence[Listing], cpu: str, llvm_mca: str) -> list[float]:
    lines: list[str] = []
    for i, text in enumerate(texts):
        lines += [f"# LLVM-MCA-BEGIN t{i}", *text, f"# LLVM-MCA-END t{i}"]
    command = (
        llvm_mca, "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={ITERATIONS}",
        "-call-latency=0", "-skip-unsupported-instructions=lack-sched", "-json",
        "-instruction-info=false", "-resource-pressure=false",
    )  # fmt: skip
    try:
        done = subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, text=True,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise AnalysisError(f"llvm-mca failed: {e}") from None
    if done.returncode or "error:" in done.stderr:
        bad = re.search(r"error: (.*)\n(.*)", done.stderr)
        why = (
            f"{bad[1]}: {bad[2].strip()!r}"
            if bad
            else done.stderr.strip()[:300] or f"exit code {done.returncode}"
        )
        raise AnalysisError(f"llvm-mca -mcpu={cpu} cannot time the code: {why}")
    regions = json.loads(done.stdout)["CodeRegions"]
    by_name = {r["Name"]: r["SummaryView"]["TotalCycles"] for r in regions}
    return [by_name.get(f"t{i}", 0) / ITERATIONS for i in range(len(texts))]


@lru_cache
def llvm_version(llvm_mca: str) -> str:
    """Of the tool, e.g. "19.1.7"; AnalysisError where it does not tell."""
    try:
        done = subprocess.run((llvm_mca, "--version"), capture_output=True, text=True)
    except OSError as e:
        raise AnalysisError(f"llvm-mca failed: {e}") from None
    found = re.search(r"version (\S+)", done.stdout)
    if not found:
        raise AnalysisError(f"llvm-mca failed: {llvm_mca} --version told no version")
    return found[1]


def _file(text: Listing, cpu: str, version: str) -> Path:
    key = hashlib.sha256("\n".join((version, cpu, str(ITERATIONS), *text)).encode()).hexdigest()
    return cache_dir() / "virtual" / "mca" / key[:2] / key[2:34]


def _read(file: Path) -> float | None:
    try:
        return float(file.read_text())
    except (OSError, ValueError):  # not there; a damaged file is written anew
        return None


def _write(file: Path, value: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".partial-")
    with os.fdopen(handle, "w") as f:
        f.write(repr(value))
    os.replace(name, file)
