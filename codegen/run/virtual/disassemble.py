"""Encodings -> assembly text, with llvm-mc."""

import re
import struct
import subprocess
from collections.abc import Iterable

from codegen.run.virtual.errors import AnalysisError

# Everything that the supported cores have; a core's own tables then know or do not know it.
_FEATURES = "+v8.2a,+neon,+fullfp16,+dotprod,+crypto,+crc,+lse,+rcpc"
_TARGETS = re.compile(r"^(bl?|b\.\w+|cbn?z|tbn?z|adrp?)\b(.*?)#-?\d+$")


def disassemble(words: Iterable[int], llvm_mc: str) -> dict[int, str]:
    """Text of each encoding, e.g. "fmla v0.4s, v1.4s, v2.s[0]"; those that llvm-mc does not know
    are left out. Branch targets become #0, so that equal code at other addresses is equal text."""
    unique = sorted(set(words))
    lines = [" ".join(f"0x{b:02x}" for b in struct.pack("<I", w)) for w in unique]
    command = (llvm_mc, "--disassemble", "-triple=aarch64", f"-mattr={_FEATURES}")
    try:
        done = subprocess.run(
            command, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise AnalysisError(f"llvm-mc failed: {e}") from None
    unknown = {int(n) - 1 for n in re.findall(r"<stdin>:(\d+):\d+: warning: invalid", done.stderr)}
    known = [w for i, w in enumerate(unique) if i not in unknown]
    text = [t for t in done.stdout.splitlines() if t.startswith("\t") and t.strip()[0] != "."]
    if done.returncode or len(text) != len(known):
        raise AnalysisError(f"llvm-mc failed: {done.stderr.strip()[:300] or 'lines are missing'}")
    return {w: _clean(t) for w, t in zip(known, text, strict=True)}


def _clean(text: str) -> str:
    text = " ".join(text.split("//")[0].split())
    return _TARGETS.sub(r"\1\2#0", text)
