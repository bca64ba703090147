"""Execution order with a small memory peak: beam search over the topological orders of the
steps."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from codegen.regions import aligned, dependencies, outside, overwritable
from codegen.steps import Program, Step

# Orders kept at each depth. Networks with few parallel branches have fewer than this at all; then
# the search is exact.
_BEAM = 128


@dataclass(frozen=True)
class _Buffer:
    """Memory of one owner: size in bytes; which steps write it and which touch it, as bit sets."""

    bytes: int
    writers: int
    touchers: int


@dataclass(frozen=True)
class _State:
    """A partial order: peak and live bytes, the steps done (a bit set), those that may come next,
    and the way back."""

    peak: int
    live: int
    done: int
    ready: tuple[int, ...]
    before: "_State | None" = None
    step: int = -1


class _Problem:
    """Steps, what each needs, and the memory each touches (the caller's tensors left out)."""

    def __init__(self, program: Program):
        needs = dependencies(program)
        self.needs = [_bits(n) for n in needs]
        self.after = _inverse(needs)
        self.scratch = [aligned(s.scratch_bytes) for s in program.steps]
        self.buffers = _buffers(program)
        self.spare = _spare(program, self.buffers)

    def start(self) -> _State:
        """Nothing done; the peak cannot be below what one step alone keeps alive."""
        floor = max(
            (
                sum(b.bytes for b in own.values())
                + scratch
                - max((b.bytes for b in spare), default=0)
                for own, scratch, spare in zip(self.buffers, self.scratch, self.spare, strict=True)
            ),
            default=0,
        )
        return _State(floor, 0, 0, tuple(i for i, n in enumerate(self.needs) if not n))

    def run(self, state: _State, i: int) -> _State:
        """The state after step i."""
        done = state.done | 1 << i
        born = sum(b.bytes for b in self.buffers[i].values() if not b.writers & state.done)
        dead = sum(b.bytes for b in self.buffers[i].values() if not b.touchers & ~done)
        in_place = max((b.bytes for b in self.spare[i] if not b.touchers & ~done), default=0)
        now = state.live + born - in_place + self.scratch[i]
        free = [j for j in self.after[i] if not self.needs[j] & ~done]
        ready = tuple(sorted((*(j for j in state.ready if j != i), *free)))
        live = state.live + born - dead
        return _State(max(state.peak, now), live, done, ready, state, i)

    def next(self, state: _State) -> list[_State]:
        """All next states; only one where a step raises neither the peak nor what stays alive,
        since any order can be changed to do that step first without a higher peak."""
        found = []
        for i in state.ready:
            new = self.run(state, i)
            if new.peak == state.peak and new.live <= state.live:
                return [new]
            found.append(new)
        return found


def order_steps(program: Program) -> tuple[Step, ...]:
    """The steps in the order with the smallest peak of live bytes found; ties keep the given
    order."""
    problem = _Problem(program)
    states = [problem.start()]
    for _ in program.steps:
        found: dict[int, _State] = {}
        for state in states:  # best first: of equal orders the one met first stays
            for new in problem.next(state):
                old = found.get(new.done)
                if old is None or new.peak < old.peak:
                    found[new.done] = new
        states = sorted(found.values(), key=lambda s: (s.peak, s.live))[:_BEAM]
    return tuple(program.steps[i] for i in _way(states[0]))


def order_as(program: Program, names: Sequence[str]) -> tuple[Step, ...]:
    """The steps in the order of the node `names`, or, where a step would come before what it
    reads, as soon after as possible; what a node brings along (conversions, copies) goes right
    before its first use."""
    rank = {name: i for i, name in enumerate(names)}
    needs = dependencies(program)
    after = _inverse(needs)

    def key(i: int) -> int:
        name = node_of(program.steps[i])
        return rank[name] if name in rank else min(map(key, after[i]), default=len(names))

    ready = [(key(i), i) for i, needed in enumerate(needs) if not needed]
    heapq.heapify(ready)
    out: list[int] = []
    while ready:
        _, i = heapq.heappop(ready)
        out.append(i)
        for j in after[i]:
            needs[j].discard(i)
            if not needs[j]:
                heapq.heappush(ready, (key(j), j))
    return tuple(program.steps[i] for i in out)


def node_of(step: Step) -> str:
    """Name of the node that a step belongs to; the parts of a concatenation are numbered."""
    return step.name.rsplit("[", 1)[0] if step.op == "Concat" else step.name


def _inverse(needs: Sequence[set[int]]) -> list[list[int]]:
    """Per step, the steps that need it."""
    after: list[list[int]] = [[] for _ in needs]
    for i, needed in enumerate(needs):
        for j in needed:
            after[j].append(i)
    return after


def _way(state: _State) -> list[int]:
    out: list[int] = []
    while state.before is not None:
        out.append(state.step)
        state = state.before
    return out[::-1]


def _bits(numbers: set[int]) -> int:
    return sum(1 << n for n in numbers)


def _touched(program: Program) -> Iterator[tuple[int, str, bool]]:
    """(step number, owner of memory, is it written)"""
    for i, step in enumerate(program.steps):
        for key in step.reads:
            yield i, program.root(key)[0], False
        for key in step.outputs:
            yield i, program.root(key)[0], True


def _buffers(program: Program) -> list[dict[str, _Buffer]]:
    """Per step, the memory it reads or writes, by owner."""
    fixed = outside(program)
    writers: dict[str, int] = {}
    touchers: dict[str, int] = {}
    for i, root, written in _touched(program):
        touchers[root] = touchers.get(root, 0) | 1 << i
        writers[root] = writers.get(root, 0) | (written << i)
    made = {
        root: _Buffer(aligned(program.values[root].bytes), writers[root], touchers[root])
        for root in touchers
        if root not in fixed
    }
    own: list[dict[str, _Buffer]] = [{} for _ in program.steps]
    for i, root, _ in _touched(program):
        if root in made:
            own[i][root] = made[root]
    return own


def _spare(program: Program, own: Sequence[Mapping[str, _Buffer]]) -> list[list[_Buffer]]:
    """Per step, the memory that its result may take over whole once nothing else needs it."""
    found = []
    for step, buffers in zip(program.steps, own, strict=True):
        roots = {program.root(source)[0] for source in overwritable(program, step)}
        size = aligned(program.values[step.outputs[0]].bytes)
        found.append([buffers[r] for r in roots if buffers[r].bytes == size])
    return found
