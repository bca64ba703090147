"""Where the cycles of a trace go on a core that issues in order: the model of inorder.py, watched.

Every cycle of a pass has one instruction that it waits before, and one reason. Two instructions
issue per cycle at best, so "two issued" is the reason that nothing can be done about.
"""

from collections import Counter
from collections.abc import Sequence

from codegen.run.virtual.explain import Explanation, Note, cycles_text
from codegen.run.virtual.inorder import (
    BRANCH,
    ISSUE,
    OPERAND,
    PROFILES,
    TIMED_PASSES,
    WARM_PASSES,
    Core,
    Obstacle,
    Profile,
)
from codegen.run.virtual.instruction import Instruction, parse

# Of the cycles: then two instructions a cycle are the limit; then the second reason is named too.
_MOSTLY, _ALSO = 0.6, 0.15
_RESULTS = {
    "load": "a load", "vector": "a vector result", "insert": "a move to a vector register",
    "alu": "an integer result", "multiply": "a multiply", "divide": "a division",
}  # fmt: skip
Reason = tuple[str, str, int]  # an obstacle's reason, its register, who writes that (-1: nobody)


class _Watched(Core):
    """Remembers per instruction (by its place in the trace) why cycles pass before it."""

    def __init__(self, profile: Profile, length: int):
        super().__init__(profile)
        self.length, self.at = length, 0
        self.lost: list[Counter[Reason]] = [Counter() for _ in range(length)]
        self.writer: dict[str, int] = {}

    def _wait(self, i: Instruction, obstacle: Obstacle) -> None:
        before = self.cycle
        super()._wait(i, obstacle)
        writer = self.writer.get(obstacle.register, -1)
        self.lost[self.at][obstacle.reason, obstacle.register, writer] += self.cycle - before

    def _issue(self, i: Instruction) -> None:
        before = self.cycle
        super()._issue(i)
        for name in (*i.writes, i.pointer):
            self.writer[name] = self.at
        self.at = (self.at + 1) % self.length
        if self.cycle > before:
            self.lost[self.at][BRANCH, "", -1] += self.cycle - before


def explain(listing: Sequence[str], loop: bool, cpu: str) -> Explanation:
    """Reasons of all cycles of a pass: in a steady state for a loop."""
    code = [parse(text) for text in listing]
    core, passes = _Watched(PROFILES[cpu], len(code)), 1
    if loop:
        for _ in range(WARM_PASSES):
            core.run(code)
        core.lost = [Counter() for _ in code]
        passes = TIMED_PASSES
    for _ in range(passes):
        core.run(code)
    total: Counter[str] = Counter()
    chains: Counter[tuple[str, str, str]] = Counter()
    for at, lost in enumerate(core.lost):
        for (reason, register, writer), cycles in lost.items():
            name = _named(reason, code, writer)
            total[name] += cycles / passes
            if reason == OPERAND:
                source = code[writer].opcode if writer >= 0 else "before"
                chains[name, register, f"{source} -> {code[at].opcode}"] += cycles / passes
    use = tuple(sorted(total.items(), key=lambda x: (-x[1], x[0])))
    notes = tuple(_note(code, n, lost, passes) for n, lost in enumerate(core.lost))
    return Explanation(_bottleneck(use, chains), use, notes)


def _named(reason: str, code: Sequence[Instruction], writer: int) -> str:
    """Waiting for a load is another thing than waiting for a sum."""
    if reason != OPERAND:
        return reason
    unit = code[writer].unit if writer >= 0 else ""
    return f"waits for {_RESULTS.get(unit, 'a register')}"


def _note(code: Sequence[Instruction], at: int, lost: Counter[Reason], passes: int) -> Note:
    cycles = sum(lost.values()) / passes
    why = []
    for (reason, register, writer), n in sorted(lost.items(), key=lambda x: (-x[1], x[0])):
        if reason == OPERAND:
            place = f", {(at - writer) % len(code) or len(code)} back" if writer >= 0 else ""
            source = code[writer].opcode if writer >= 0 else "before"
            reason = f"{register} from {source}{place}"
        if reason != ISSUE or len(lost) > 1:
            share = f" {cycles_text(n / passes)}" if len(lost) > 1 else ""
            why.append(reason + share)
    return Note(cycles, code[at].unit, "; ".join(why))


def _bottleneck(use: Sequence[tuple[str, float]], chains: Counter[tuple[str, str, str]]) -> str:
    """In words, with the figures; `chains` counts (reason, register, who waits for whom)."""
    cycles = sum(n for _, n in use)
    if not cycles:
        return "nothing: it issues in the cycle of what comes before"
    if dict(use).get(ISSUE, 0) >= _MOSTLY * cycles:
        return (
            f"two instructions a cycle: {cycles_text(dict(use)[ISSUE])} of "
            f"{cycles_text(cycles)} cycles are full"
        )
    (name, most), *rest = [x for x in use if x[0] != ISSUE] or use
    said = f"{name}: {cycles_text(most)} of {cycles_text(cycles)} cycles"
    mine = {c: n for c, n in chains.items() if c[0] == name}
    if mine:
        _, register, pair = max(mine, key=lambda c: (mine[c], c))
        said = f"latency, {said}, most through {register}: {pair}"
    if rest and rest[0][1] >= _ALSO * cycles:
        said += f"; then {rest[0][0]}: {cycles_text(rest[0][1])}"
    return said
