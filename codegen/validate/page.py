"""docs/VALIDATION.md: what was compared, what came out, and what is not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from codegen.board import Board
from codegen.validate.fit import Parameter, parameters
from codegen.validate.published import USES, figures, networks, reference
from codegen.validate.summary import Comparison, errors, targets

_WORST = 5  # comparisons named as the furthest off

_HEAD = """# How good the virtual board is

`codegen boards validate --params DIR --out docs/VALIDATION.md` writes this page.

ncnn's benchmark networks (one thread, empty weights, as its own `benchncnn` runs them) go
through the virtual board as they are in ncnn's AArch64 wheel, and the predicted latency of one
inference is set against the latency that was published for the real board.

The networks are split in order of their multiply-adds, by turns: those marked *fit* may adjust the
few penalties listed below, those marked *check* are only compared. *Extra* networks are not part of
the target and are never used to fit. *Transfer*: boards for which nothing was fitted, with the
penalties that the same core got elsewhere. *int8* networks have a section of their own, and are in
none of the other figures.

The split follows from size alone and was made once. What is blind to the *check* networks are the
fitted penalties: the form of the model, and the penalties that are not fitted, were chosen with the
errors of all networks in view.
"""

_LIMITS = """## What the model does not see

- `prfm` and `dc zva`, the TLBs, the instruction cache, conflicts between cache banks, the order of
  requests in DRAM and its refresh, other cores and the GPU on the same bus.
- The prefetcher and the branch predictor have stated sizes (streams, lines ahead, branches of
  history), not the real ones, which are not published in full.
- What the core has to do between two lines from memory hides their transfer; it hides nothing of a
  line from L2 or of a demand miss beyond what their penalties say on the average.
- The operating system: interrupts, page faults, a clock that is throttled.
- ncnn is newer here than in the published runs, and those differ among themselves (see above).
- A penalty belongs to a board as much as to its core: the *transfer* tables show how far off a
  board can be that shares no more than the core with a fitted one. Where a fitted value lies at
  its bound, it may stand in for something that the model does not have.
- Networks were compared, not layers: an error of one layer may make up for another's. Ranks between
  programs that lie within about 10 % of each other are not certain on silicon.
- Of int8, four networks were compared, by the same instructions of ncnn's: what is said of int8 is
  no statement on other mixes of instructions.
- Other boards take the penalties of their core, unchecked; the Cortex-A55 and A76 were compared
  with nothing.
"""


@dataclass(frozen=True)
class Versions:
    """Of what made the figures."""

    ncnn: str
    qemu: str
    llvm: str


def document(rows: Sequence[Comparison], boards: Sequence[Board], versions: Versions) -> str:
    """The page, for these comparisons on these boards (which have published figures)."""
    floats = [r for r in rows if r.use != "int8"]
    parts = [
        _HEAD,
        f"Made with ncnn {versions.ncnn}, qemu {versions.qemu}, LLVM {versions.llvm}.\n",
        _targets(floats),
        *(_board(b, [r for r in floats if r.board == b.name]) for b in boards),
        int8_section(rows, boards),
        _spread(boards),
        penalties(boards),
        _networks(),
        _LIMITS,
    ]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def _targets(rows: Sequence[Comparison]) -> str:
    found = [(t.what, t.wanted, t.found, "yes" if t.met else "**no**") for t in targets(rows)]
    worst = sorted(rows, key=lambda r: -abs(r.ratio - 1))[:_WORST]
    return (
        "## Targets\n\n"
        + _table(("figure", "target", "found", "met"), found)
        + "\nFurthest from what was published: "
        + ", ".join(f"{r.network} on {r.board} ({r.ratio:.2f}, {r.use})" for r in worst)
        + ".\n"
    )


_INT8 = """## int8

ncnn's own int8 definitions (`*_int8.param`) of four of the networks, with empty weights, under the
same cycle models: nothing was fitted to them. ncnn is newer here than in the published runs, and
the figures do not tell how much of a ratio is due to its kernels: `int8 / float32` sets the two
types beside each other, as predicted and as published.
"""


def int8_section(rows: Sequence[Comparison], boards: Sequence[Board]) -> str:
    """Comparisons of int8 networks, and their errors by board and in all; nothing without any."""
    found = [r for r in rows if r.use == "int8"]
    if not found:
        return ""
    titles = {n.name: n.title for n in networks()}
    floats = {(r.board, f"{r.network}_int8"): r for r in rows if r.use != "int8"}
    table = []
    for r in found:
        other, whole = floats.get((r.board, r.network)), reference(r.board).ms
        predicted = f"{r.predicted_ms / other.predicted_ms:.2f}" if other else "not run"
        published = r.published_ms / whole[r.network.removesuffix("_int8")]
        table.append((r.board, titles[r.network], f"{r.predicted_ms:.1f}", f"{r.published_ms:.1f}",
                      f"{r.ratio:.2f}", predicted, f"{published:.2f}"))  # fmt: skip
    head = ("board", "network", "predicted ms", "published ms", "ratio",
            "int8 / float32, predicted", "published")  # fmt: skip
    sums = [(b.name, errors([r for r in found if r.board == b.name])) for b in boards]
    sums.append(("all", errors(found)))
    off = [(name, str(e.count), f"{e.mean:.1%}", f"{e.percentile_90:.1%}", f"{e.bias:.2f}",
            f"{e.tau:.2f}" if name != "all" and e.tau is not None else "")
           for name, e in sums if e]  # fmt: skip
    said = ("board", "networks", "mean absolute error", "90th percentile",
            "geometric mean of ratio", "Kendall tau")  # fmt: skip
    return "\n".join((_INT8, _table(head, table), _table(said, off)))


def _board(board: Board, rows: Sequence[Comparison]) -> str:
    published = reference(board.name)
    titles = {n.name: n.title for n in networks()}
    table = [
        (titles[r.network], r.use, f"{r.predicted_ms:.1f}", f"{r.published_ms:.1f}",
         f"{r.ratio:.2f}", *(f"{r.shares[k]:.0%}" for k in ("core", "branch", "l2", "memory")))
        for r in rows
    ]  # fmt: skip
    head = ("network", "use", "predicted ms", "published ms", "ratio", "core", "branch", "L2",
            "memory")  # fmt: skip
    out = [
        f"## {board.title}: {board.name}\n",
        f"{board.core} at {board.clock_hz / 1e9:.2f} GHz. Published: {published.source}; date "
        f"{published.date}; ncnn {published.ncnn}.\n",
        _table(head, table),
        *_errors(rows),
    ]
    return "\n".join(out)


def _errors(rows: Sequence[Comparison]) -> list[str]:
    table = []
    for use in USES:
        found = errors([r for r in rows if r.use == use])
        if found:
            table.append((use, str(found.count), f"{found.mean:.1%}", f"{found.percentile_90:.1%}",
                          f"{found.bias:.2f}"))  # fmt: skip
    head = ("use", "networks", "mean absolute error", "90th percentile", "geometric mean of ratio")
    return [_table(head, table)]


def _spread(boards: Sequence[Board]) -> str:
    """Other published runs of the same boards, relative to the reference."""
    names = {b.name for b in boards}
    table = []
    for other in figures("other"):
        if other.board in names:
            ratios = [ms / reference(other.board).ms[n] for n, ms in other.ms.items()]
            table.append((other.board, other.source, str(len(ratios)),
                          f"{min(ratios):.2f} to {max(ratios):.2f}"))  # fmt: skip
    if not table:
        return ""
    return (
        "## How far published figures lie apart\n\nOther published runs of ncnn on the same "
        "boards, divided by the ones above: other versions of ncnn, compilers and systems.\n\n"
        + _table(("board", "source", "networks", "ratio"), table)
    )


def penalties(boards: Sequence[Board]) -> str:
    """The section on what was fitted, with the values of these boards."""
    known = {b.name: b for b in boards}
    table = [
        (p.board, f"`{p.key}`", _value(p, known[p.board]), f"{p.low} to {p.high}", p.reason)
        for p in parameters()
        if p.board in known
    ]  # fmt: skip
    return (
        "## What was fitted\n\nThese penalties, in cycles, by least squares on the logarithm of "
        "predicted / published of the *fit* networks (`--fit`); all others are the first guess.\n\n"
        + _table(("board", "penalty", "value", "bounds", "reason of the bounds"), table)
    )


def _value(parameter: Parameter, board: Board) -> str:
    value = parameter.get(board.cycle_model)
    return f"{value}, at its bound" if value in (parameter.low, parameter.high) else str(value)


def _networks() -> str:
    table = [(n.title, f"`{n.file}`", str(n.mmacs), n.use, f"`{n.sha256[:16]}`")
             for n in networks()]  # fmt: skip
    head = ("network", "ncnn's file", "million multiply-adds", "use", "sha256, first 16 digits")
    return "## Networks\n\n" + _table(head, table)
