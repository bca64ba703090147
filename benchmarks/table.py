"""Sizes of real networks as a Markdown table: `python benchmarks/table.py [NAME...]`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from codegen.models import catalog
from codegen.models.fetch import fetch

BOARD = "jetson-nano-cpu"


def row(name: str) -> str:
    """Build one network for the board and report it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [sys.executable, "-m", "codegen.cli", "build", str(fetch(name)), "--board", BOARD]
        done = subprocess.run(
            [*command, "--out", str(out), "--json"], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr}")
        r = json.loads(done.stdout)
    cells = [
        r["macs"] / 1e6,
        *(
            r[k] / 1024
            for k in ("text_bytes", "weights_bytes", "arena_bytes", "arena_lower_bound_bytes")
        ),
    ]
    numbers = " | ".join(f"{c:,.1f}" for c in cells)
    return f"| {name} | {numbers} | {r['stack_bytes']} B | {r['max_rel_error']:.1e} |"


def main() -> None:
    """Print the table for the named networks, or for all trained ones."""
    print("| network | MMAC | code | weights | arena | largest live set | stack | max error |")
    print("|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or [m.name for m in catalog.MODELS]:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
