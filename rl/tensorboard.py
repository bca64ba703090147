"""Learning curves as TensorBoard event files (extra `[tensorboard]`)."""

from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.errors import CodegenError
from rl.choice import milliseconds
from rl.tune import Tuned


def writer_class() -> Any:
    """What writes event files; CodegenError where it is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as e:
        raise CodegenError(
            "--tensorboard", f"event files need what is not installed ({e.name})",
            "the extra [tensorboard]", "pip install 'codegen[tensorboard]'",
        ) from None  # fmt: skip
    return SummaryWriter


def write_curves(folder: Path, tuned: Tuned, agent: str, board: Board) -> None:
    """One run named after the agent: the best plan by the table after each episode (`best_ms`), by
    how much it is above the exact optimum (`gap`), and every finalist as measured
    (`finalist_ms`)."""
    unit = tuned.priced.table.unit
    with writer_class()(str(folder / agent)) as events:
        for episode, value in enumerate(tuned.found.curve):
            events.add_scalar("best_ms", milliseconds(value, unit, board), episode)
            events.add_scalar("gap", value / tuned.best.value - 1.0, episode)
        for i, finalist in enumerate(tuned.finalists):
            if not finalist.measured.error:
                ms = milliseconds(finalist.measured.cost, unit, board)
                events.add_scalar("finalist_ms", ms, i)
