"""How long the virtual board takes: `python benchmarks/virtual_speed.py [MODEL]`.

Prints what the plugin costs (its run against qemu alone; target: at most twice), and the stages of
a cold bench (nothing in the cache) of the model, by default MobileNetV2 at 224 x 224, on the
virtual A57 (targets on 2 cores: under 3 minutes in all, the analysis under 20 s).
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from codegen.board import load_board
from codegen.models.fetch import fetch
from codegen.program import bench_program
from codegen.run import Job
from codegen.run.qemu import QemuRunner
from codegen.run.virtual import VirtualRunner

BOARD = "jetson-nano-cpu"


class Stages:
    """When each stage began, in wall time and in processor seconds of all that it started."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float, float]] = []

    def __call__(self, name: str) -> None:
        self.begun.append((name, time.monotonic(), _processor_seconds()))

    def rows(self) -> list[tuple[str, float, float]]:
        """(name, wall seconds, processor seconds) of every stage but the last, which ends all."""
        pairs = zip(self.begun, self.begun[1:], strict=False)
        return [(a[0], b[1] - a[1], b[2] - a[2]) for a, b in pairs]


def _processor_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in both)


def main() -> None:
    """Measure and print."""
    model = fetch(sys.argv[1] if len(sys.argv) > 1 else "mobilenet_v2")
    board, stages = load_board(BOARD), Stages()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CODEGEN_CACHE"] = cache
        with bench_program(Path(model), board, None, {}, stages) as program:
            if program.error:
                raise SystemExit(program.error)
            job = Job(program.path, ("0",), timeout_s=3600)
            outcome = VirtualRunner(stages).run(job, board)
            stages("qemu alone")
            plain = QemuRunner().run(job, board)
            stages("end")
    for ended in (outcome, plain):
        if ended.error:
            raise SystemExit(ended.error)
    rows = stages.rows()
    for name, wall, processor in rows:
        print(f"{name:20} {wall:7.1f} s   processor {processor:7.1f} s")
    seconds = {name: processor for name, _, processor in rows}
    ratio = seconds["running under qemu"] / seconds["qemu alone"]
    print(f"plugin and qemu / qemu alone: {ratio:.2f} (processor time; target 2)")
    cold = [(wall, processor) for name, wall, processor in rows if name != "qemu alone"]
    wall, processor = (sum(x) for x in zip(*cold, strict=True))
    print(f"cold bench of {model.name}: {wall:.1f} s, processor {processor:.1f} s (target 180)")
    print(f"{outcome.report['cycles']:,} cycles, {outcome.report['ms']:.3f} ms on {BOARD}")


if __name__ == "__main__":
    main()
