"""The virtual board's figures for one fixed program: `python -m tests.golden_counts [--write]`.

Without --write it prints what differs from the committed figures. They belong to the versions of
qemu and LLVM that are written down with them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from codegen.board import load_board
from codegen.run import Job, pick_runner
from codegen.run.virtual import missing
from codegen.run.virtual.outoforder import llvm_version
from codegen.toolchain import find_llvm, find_qemu

FOLDER = Path(__file__).parent / "golden"
PROGRAM = FOLDER / "virtual_board.elf"
COUNTS = FOLDER / "virtual_board.json"
# One board per core.
BOARDS = ("raspberry-pi-3b-plus", "rock-3a", "jetson-nano-cpu", "raspberry-pi-4", "raspberry-pi-5")


def versions() -> dict[str, str]:
    """Of the tools on which figures depend: those of this machine."""
    said = subprocess.run((str(find_qemu()), "--version"), capture_output=True, text=True).stdout
    qemu = re.search(r"version (\S+)", said)
    return {"qemu": qemu[1] if qemu else "?", "llvm": llvm_version(str(find_llvm("llvm-mca")))}


def measure(board: str) -> dict[str, Any]:
    """Figures of every region on a board; RuntimeError where the program does not run."""
    target = load_board(board)
    outcome = pick_runner(target, "virtual").run(Job(PROGRAM), target)
    if outcome.error:
        raise RuntimeError(f"{board}: {outcome.error}")
    return outcome.report["regions"]


def main() -> None:
    """Compare, or write the figures anew."""
    why = missing(load_board(BOARDS[0]))
    if why:
        raise SystemExit(why)
    found = {"versions": versions(), "boards": {b: measure(b) for b in BOARDS}}
    if sys.argv[1:] == ["--write"]:
        COUNTS.write_text(json.dumps(found, indent=1) + "\n")
        return
    known = json.loads(COUNTS.read_text())
    if known["versions"] != found["versions"]:
        print(f"written for {known['versions']}, here are {found['versions']}")
    for board, regions in found["boards"].items():
        for number, region in regions.items():
            old = known["boards"].get(board, {}).get(number, {})
            for key in ("cycles", "core", "branch", "l2", "memory", "instructions"):
                if old.get(key) != region[key]:
                    print(f"{board} region {number} {key}: {old.get(key)} -> {region[key]}")


if __name__ == "__main__":
    main()
