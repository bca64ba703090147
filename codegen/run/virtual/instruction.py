"""What the in-order model must know of one A64 instruction: what it reads and writes, which unit it
needs. Read from llvm-mc's text, whose forms are few and regular."""

import re
from dataclasses import dataclass
from functools import lru_cache

from codegen.run.virtual.errors import AnalysisError

FLAGS = "nzcv"
_REGISTER = re.compile(r"\b(?:([xw])(\d+|zr)|([vqdshb])(\d+)(?:\.(\d*)([bhsd]))?|(w?sp))\b")
_BYTES = {"b": 1, "h": 2, "s": 4, "d": 8, "q": 16}

_BRANCH = re.compile(r"(b|bl|br|blr|ret|cbn?z|tbn?z|b\.\w+)$")
_COMPARE = re.compile(r"(cmp|cmn|tst|fcmpe?|ccmp|ccmn|fccmpe?)$")
_SETS_FLAGS = re.compile(r"(adds|subs|ands|bics|adcs|sbcs|negs|ngcs)$")
_USES_FLAGS = re.compile(
    r"(b\.\w+|f?csel|cs(et|etm|inc|inv|neg)|cin[cv]|cneg|f?ccm.*|adcs?|sbcs?)$"
)
# Vector instructions that also read the register they write.
_ACCUMULATES = re.compile(
    r"(fml[as]2?|fmlal2?|ml[as]|[su]ml[as]l2?|sqdml[as]l2?|[su]dot|bfdot|[su]adalp|[su]abal?2?"
    r"|[su]rsra|[su]sra|s[lr]i|bsl|bit|bif|tbx|u?[sq]*x?tu?n2|r?shrn2|[su]?q?r?shru?n2|fcvtx?n2|sqrdml.h"
    r"|movk|bfi|bfxil|bfm|ins)$"
)
# A multiply's sum may be forwarded to the next multiply-add of the same kind.
_CHAINS = re.compile(r"(fml[as]2?|ml[as]|[su]ml[as]l2?|[su]dot|[su]adalp)$")
_MULTIPLY = re.compile(r"(mul|madd|msub|mneg|[su]mull|[su]mulh|[su]m(add|sub|neg)l)$")


@dataclass(frozen=True)
class Instruction:
    """`unit` is one of alu, multiply, divide, branch, load, store, vector, insert (general to
    vector) or none. `width` is bytes: of the access, or of the vector operation. `accumulator` is
    the register whose sum may be forwarded, `pointer` the one that write-back moves. `shifted`: an
    operand passes the shifter first."""

    opcode: str
    unit: str
    width: int
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    accumulator: str = ""
    pointer: str = ""
    vector: bool = False
    shifted: bool = False


@lru_cache(maxsize=1 << 16)
def parse(text: str) -> Instruction:
    """One line of llvm-mc's output; AnalysisError for what is not an instruction that it prints."""
    opcode, _, rest = text.partition(" ")
    if not re.fullmatch(r"[a-z][a-z0-9.]*", opcode):
        raise AnalysisError(f"no timing for the instruction {text!r}")
    names = _names(rest)
    if _BRANCH.match(opcode):
        writes = ("x30",) if opcode in ("bl", "blr") else ()
        reads = ("x30",) if opcode == "ret" else tuple(names)
        return Instruction(opcode, "branch", 0, (*reads, *_flags(opcode)), writes)
    if re.match(r"(ld|st|swp|cas)", opcode):
        return _memory(opcode, rest)
    if opcode in ("nop", "hint", "prfm", "prfum", "dmb", "dsb", "isb", "svc", "bti", "paciasp"):
        return Instruction(opcode, "none", 0, (), ())
    return _compute(opcode, rest, names)


def _names(operands: str) -> list[str]:
    """Registers in order of appearance: x3 for w3, v3 for q3; the zero register is left out."""
    out = []
    for m in _REGISTER.finditer(operands):
        if m[7]:
            out.append("sp")
        elif m[1]:
            out += [f"x{m[2]}"] if m[2] != "zr" else []
        else:
            out.append(f"v{m[4]}")
    return out


def _flags(opcode: str) -> tuple[str, ...]:
    return (FLAGS,) if _USES_FLAGS.match(opcode) else ()


def _memory(opcode: str, rest: str) -> Instruction:
    data_text, _, address = rest.partition("[")
    if rest.startswith("{"):  # the bracket of `{ v0.s }[1], [x0]` comes before the address
        data_text, _, address = rest.rpartition("[")
        if "]!" not in rest and rest.count("[") == 2:
            data_text = rest[: rest.rindex("[")]
    data, pointers = _names(data_text), _names(address)
    lane = rest.startswith("{") and "}[" in rest
    base = pointers[0] if pointers else ""
    moved = base if "]!" in rest or re.search(r"\], [#x]", f"[{address}") else ""
    vector = any(n.startswith("v") for n in data)
    width = _access_bytes(opcode, data_text)
    if opcode.startswith("st"):
        status = data[:1] if opcode.startswith(("stx", "stlx")) else []
        return Instruction(
            opcode, "store", width, (*data, *pointers), (*status,), "", moved, vector
        )
    reads = (*pointers, *data) if lane or not opcode.startswith("ld") else tuple(pointers)
    return Instruction(opcode, "load", width, reads, tuple(data), "", moved, vector)


def _access_bytes(opcode: str, data: str) -> int:
    total = 0
    for m in _REGISTER.finditer(data):
        if m[1]:
            total += 8 if m[1] == "x" else 4
        elif m[3] == "v":
            total += _BYTES[m[6]] * int(m[5] or 1)
        elif m[3]:
            total += _BYTES[m[3]]
    sized = re.search(r"(?<=[rp])s?([bhw])$", opcode)
    return {"b": 1, "h": 2, "w": 4}[sized[1]] if sized else max(total, 1)


def _compute(opcode: str, rest: str, names: list[str]) -> Instruction:
    compares = bool(_COMPARE.match(opcode))
    first = _REGISTER.match(rest.split(",")[0].strip())
    discards = bool(first and first[2] == "zr")
    written = () if compares or discards or not names else (names[0],)
    flags = (FLAGS,) if compares or _SETS_FLAGS.match(opcode) else ()
    into_lane = bool(re.match(r"v\d+\.[bhsd]\[", rest))
    accumulates = bool(_ACCUMULATES.match(opcode)) or (into_lane and opcode in ("mov", "ins"))
    reads = names if compares or accumulates or discards else names[1:]
    vector = any(n.startswith("v") for n in names)
    chain = names[0] if vector and _CHAINS.match(opcode) else ""
    unit = _unit(opcode, names, vector)
    shifted = not vector and bool(re.search(r"\b(lsl|lsr|asr|ror|[su]xt[bhwx])\b", rest))
    return Instruction(
        opcode, unit, _vector_bytes(rest) if vector else 0, (*reads, *_flags(opcode)),
        (*written, *flags), chain, "", vector, shifted,
    )  # fmt: skip


def _unit(opcode: str, names: list[str], vector: bool) -> str:
    if vector:
        to_vector = names[0].startswith("v") and any(n[0] in "xs" for n in names[1:])
        return "insert" if to_vector and opcode in ("mov", "ins", "fmov", "dup") else "vector"
    if _MULTIPLY.match(opcode):
        return "multiply"
    return "divide" if opcode in ("udiv", "sdiv") else "alu"


def _vector_bytes(rest: str) -> int:
    """The widest operand: 16 for .4s or .16b or q, 8 for .2s or a scalar."""
    for m in _REGISTER.finditer(rest):
        if m[3] == "q" or (m[3] == "v" and m[5] and _BYTES[m[6]] * int(m[5]) == 16):
            return 16
    return 8
