"""Time of traces on an in-order core (Cortex-A53, A55): a dual-issue scoreboard of our own, since
llvm-mca's in-order model is about three times too slow on mixed loads and multiplies.

Rules: two instructions a cycle, in order; one load or store, one branch, one multiply a cycle; the
vector datapath does one 128-bit or two 64-bit operations a cycle; loads hold the load path one
cycle per 64 bits, and on the A53 no vector arithmetic issues meanwhile; a general-to-vector move
pairs with a vector load, not with a 128-bit operation (ncnn's notes on A53 and A55 dual issue).
Latencies: fmla 8 with 4 to the next accumulation on the A53; others as in the cores' optimisation
guides and gcc's tables.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from codegen.run.virtual.instruction import FLAGS, Instruction, parse

WARM_PASSES, TIMED_PASSES = 4, 8


@dataclass(frozen=True)
class Profile:
    """What differs between the in-order cores: latencies in cycles, and for how many cycles no
    vector arithmetic issues beside a vector load of up to 8 bytes, and of 16."""

    load: int
    vector_load: int
    multiply: int
    float_op: int
    fma: int
    fma_chain: int
    vector_int: int
    vector_multiply: int
    load_blocks8: int
    load_blocks16: int


PROFILES = {
    "cortex-a53": Profile(3, 4, 3, 4, 8, 4, 3, 4, 1, 2),
    "cortex-a55": Profile(3, 3, 3, 4, 4, 4, 2, 4, 0, 1),
}

# Why an instruction waits.
OPERAND = "a register that is not ready"
ISSUE = "two issued"
PORT = "the memory port is busy"
BESIDE_LOAD = "a vector load holds the vector pipe"
PIPE = "the vector pipe is full"
PAIRING = "an insert and a 128-bit operation do not pair"
UNIT = "the {} unit is busy"
BRANCH = "what follows a branch is another fetch"


@dataclass(frozen=True)
class Obstacle:
    """`register` is the one that is not ready; `until` is the cycle in which to try again."""

    reason: str
    until: int
    register: str = ""


_DIVIDE = re.compile(r"(fdiv|fsqrt)$")
_FLOAT = re.compile(r"f(?!mov)|[su]cvtf")
_VECTOR_MULTIPLY = re.compile(r"([su]?q?r?d?mul|ml[as]|[su]ml|[su]dot|[su]adalp|sqdm|sqrdm)")


def cycles(listings: Sequence[tuple[Sequence[str], bool]], cpu: str) -> list[float]:
    """Cycles of one pass through each (listing, is it a loop)."""
    profile = PROFILES[cpu]
    return [_time([parse(t) for t in listing], loop, profile) for listing, loop in listings]


def _time(code: Sequence[Instruction], loop: bool, profile: Profile) -> float:
    core = Core(profile)
    if not loop:
        return float(core.run(code))
    for _ in range(WARM_PASSES):
        start = core.run(code)
    for _ in range(TIMED_PASSES):
        end = core.run(code)
    return (end - start) / TIMED_PASSES


class Core:
    """The state of the pipeline; `cycle` is where the next instruction may issue."""

    def __init__(self, profile: Profile):
        self.p = profile
        self.cycle = 0
        self.issued = 0  # in this cycle
        self.ready: dict[str, int] = {}  # register -> cycle in which its value can be read
        self.chain: dict[str, tuple[str, int]] = {}  # the same for the next sum of the same kind
        self.free = {"memory": 0, "multiply": 0, "divide": 0, "vector_divide": 0}
        self.half = 0  # 64-bit halves of the vector datapath taken in this cycle
        self.wide = self.inserted = False  # a 128-bit operation, an insert in this cycle
        self.blocked = 0  # no vector arithmetic before this cycle

    def run(self, code: Sequence[Instruction]) -> int:
        """One pass; returns the first cycle after it."""
        for i in code:
            while obstacle := self._obstacle(i):
                self._wait(i, obstacle)
            self._issue(i)
        return self.cycle + (1 if self.issued else 0)

    def _wait(self, i: Instruction, obstacle: "Obstacle") -> None:
        self._advance(obstacle.until)

    def _advance(self, cycle: int) -> None:
        if cycle > self.cycle:
            self.cycle, self.issued, self.half = cycle, 0, 0
            self.wide = self.inserted = False

    def _obstacle(self, i: Instruction) -> "Obstacle | None":
        """Why it cannot issue in this cycle."""
        missing = max((self._readable(i, n), n) for n in i.reads) if i.reads else (0, "")
        if missing[0] > self.cycle:
            return Obstacle(OPERAND, missing[0], missing[1])
        reason = self._taken(i)
        return Obstacle(reason, self.cycle + 1) if reason else None

    def _readable(self, i: Instruction, name: str) -> int:
        """The cycle in which a register that it reads is there."""
        ready = self.ready.get(name, 0)
        kind, early = self.chain.get(name, ("", 0))
        if name == i.accumulator and i.reads.count(name) == 1 and kind == _kind(i):
            ready = min(ready, early)
        # A store's data is read one stage later than its address.
        return ready - (i.unit == "store" and name.startswith("v"))

    def _taken(self, i: Instruction) -> str:
        """What this cycle has no more of, of the things that it needs."""
        if self.issued == 2:
            return ISSUE
        if i.unit in ("load", "store"):
            if self.free["memory"] > self.cycle:
                return PORT
            arithmetic = i.unit == "load" and i.vector and self._blocks(i) and self.half
            return BESIDE_LOAD if arithmetic else ""
        if i.unit in ("multiply", "divide"):
            return UNIT.format(i.unit) if self.free[i.unit] > self.cycle else ""
        if i.unit == "insert":
            return PAIRING if self.wide or self.inserted else ""
        return self._vector_taken(i) if i.unit == "vector" else ""

    def _vector_taken(self, i: Instruction) -> str:
        halves = 2 if i.width == 16 else 1
        if self.blocked > self.cycle:
            return BESIDE_LOAD
        if self.half + halves > 2:
            return PIPE
        if _DIVIDE.match(i.opcode) and self.free["vector_divide"] > self.cycle:
            return UNIT.format("vector divide")
        return PAIRING if self.inserted and halves == 2 else ""

    def _blocks(self, i: Instruction) -> int:
        """Cycles without vector arithmetic that a vector load brings."""
        whole, rest = divmod(i.width, 16)
        return whole * self.p.load_blocks16 + (self.p.load_blocks8 * -(-rest // 8))

    def _issue(self, i: Instruction) -> None:
        now = self.cycle
        self.issued += 1
        latency = self._latency(i)
        for name in i.writes:
            self.ready[name] = now + (1 if name == FLAGS else latency)
            self.chain.pop(name, None)
        if i.accumulator:
            forward = self.p.fma_chain if i.opcode.startswith("fml") else 1
            self.chain[i.accumulator] = (_kind(i), now + forward)
        if i.pointer:
            self.ready[i.pointer] = now + 1
        if i.unit in ("load", "store"):
            self.free["memory"] = now + max(1, -(-i.width // 8))
            if i.unit == "load" and i.vector:
                self.blocked = max(self.blocked, now + self._blocks(i))
        elif i.unit == "divide":
            self.free["divide"] = now + latency
        elif i.unit == "multiply":
            self.free["multiply"] = now + 1
        elif i.unit == "insert":
            self.inserted = True
        elif i.unit == "vector":
            self.half += 2 if i.width == 16 else 1
            self.wide |= i.width == 16
            if _DIVIDE.match(i.opcode):
                self.free["vector_divide"] = now + latency - 4
        elif i.unit == "branch":
            self._advance(now + 1)  # what follows comes from another fetch

    def _latency(self, i: Instruction) -> int:
        if i.unit == "load":
            extra = max(0, -(-i.width // 8) - 1)
            return (self.p.vector_load if i.vector else self.p.load) + (extra if i.vector else 0)
        if i.unit == "multiply":
            return self.p.multiply
        if i.unit == "divide":
            return 12
        if i.unit == "insert":
            return self.p.vector_int
        if i.unit != "vector":
            return 2 if i.shifted else 1
        if _DIVIDE.match(i.opcode):
            return 13 if i.width == 8 else 22
        if i.opcode.startswith(("fml", "fmadd", "fmsub", "fnmadd", "fnmsub")):
            return self.p.fma
        if _VECTOR_MULTIPLY.match(i.opcode):
            return self.p.vector_multiply
        return self.p.float_op if _FLOAT.match(i.opcode) else self.p.vector_int


def _kind(i: Instruction) -> str:
    """Sums of one kind forward to each other."""
    return "float" if i.opcode.startswith("f") else "int"
