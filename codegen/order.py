"""Execution order with a small memory peak: beam search over the topological orders of the steps."""

from codegen.schedule import Program, Step

# Orders kept at each depth. Networks with few parallel branches have fewer than this at all; then the search is exact.
_BEAM = 48


def order_steps(program: Program) -> tuple[Step, ...]:
    """The steps in the order with the smallest peak of live bytes found; ties keep the given order."""
    steps = program.steps
    reads, writes = buffers_of(program)
    size = {root: _bytes(program, root) for r in (*reads, *writes) for root in r}
    fixed = {*program.inputs, *(program.root(o)[0] for o in program.outputs)}
    writers: dict[str, set[int]] = {}
    readers: dict[str, set[int]] = {}
    for i in range(len(steps)):
        for root in writes[i]:
            writers.setdefault(root, set()).add(i)
        for root in reads[i]:
            readers.setdefault(root, set()).add(i)
    needs = [_needs(program, i, steps) for i in range(len(steps))]
    states: list[tuple[int, int, tuple[int, ...], frozenset[int], frozenset[str]]] = [
        (0, 0, (), frozenset(), frozenset())]
    for _ in steps:
        found: dict[frozenset[int], tuple] = {}
        for peak, live_bytes, done, doneset, live in states:
            for i in _ready(needs, doneset, done):
                born = {r for r in writes[i] if r not in live and r not in fixed}
                now = live_bytes + sum(size[r] for r in born)
                new_peak = max(peak, now + steps[i].scratch_bytes)
                after = doneset | {i}
                dead = {r for r in (live | born) if (readers.get(r, set()) | writers[r]) <= after}
                state = (new_peak, now - sum(size[r] for r in dead), (*done, i), after, frozenset((live | born) - dead))
                if after not in found or state[:3] < found[after][:3]:
                    found[after] = state
        states = sorted(found.values(), key=lambda s: s[:3])[:_BEAM]
    return tuple(steps[i] for i in states[0][2])


def _ready(needs: list[set[int]], doneset: frozenset[int], done: tuple[int, ...]):
    return [i for i in range(len(needs)) if i not in doneset and needs[i] <= doneset]


def _needs(program: Program, i: int, steps: tuple[Step, ...]) -> set[int]:
    """Steps that write what step i reads: those that touch the same memory, whole concatenations included."""
    out: set[int] = set()
    for key in steps[i].reads:
        for j, other in enumerate(steps):
            if j != i and any(overlap(program, key, w) for w in other.outputs):
                out.add(j)
    return out


def overlap(program: Program, a: str, b: str) -> bool:
    """Do two values share memory? Pitched views of one concatenation count as sharing only with the whole."""
    (ra, oa, pa), (rb, ob, pb) = program.root(a), program.root(b)
    if ra != rb:
        return False
    if pa and pb:
        return oa == ob
    if pa or pb:
        return True
    ea, eb = program.values[a].tensor.size, program.values[b].tensor.size
    return oa < ob + eb and ob < oa + ea


def buffers_of(program: Program) -> tuple[list[set[str]], list[set[str]]]:
    """Per step, the memory owners it reads and writes."""
    reads = [{program.root(k)[0] for k in s.reads} for s in program.steps]
    writes = [{program.root(k)[0] for k in s.outputs} for s in program.steps]
    return reads, writes


def _bytes(program: Program, root: str) -> int:
    return program.values[root].bytes
