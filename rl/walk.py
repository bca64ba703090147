"""What a choice leads to: the states of a plan in the making, and what each step costs.

A state says, of every tensor that is still to be read, in which layout it lies, whether a converted
copy exists, and what a concatenation needs to know of it; and of every group that was begun, how it
will end. That is all on which later costs depend, so the state together with the stage is Markov.
States are numbered per stage; transitions are computed once and kept. The rules are those of
codegen/schedule.py, and a test holds the two against each other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from codegen.graph import Node
from codegen.layout import (
    LAYOUTS,
    memory_shape,
    moves_nothing,
    permutation,
    reshape_keeps,
    same_memory,
    transposition,
)
from rl.codes import coded, other_form
from rl.facts import facts_of
from rl.space import Action, Space, Way

_NO_COPY, _OWN_COPY, _VIEW_COPY = 0, 1, 2
# Layouts before and after a cast.
_WAYS = (*zip(LAYOUTS, LAYOUTS, strict=True), *zip(LAYOUTS, LAYOUTS[::-1], strict=True))


class Held(NamedTuple):
    """A tensor that is still to be read: its layout; `view`: it is another name for something, or
    already a part of a concatenation; `pitch`: its kernel can write into one; `copy`: whether it
    was converted to the other layout, with memory of its own or without."""

    layout: str
    view: bool
    pitch: bool
    copy: int


State = tuple[tuple[str, Held | Action], ...]  # sorted by tensor; groups by the name of their end


class Move(NamedTuple):
    """What an action does: `extra` for changes of layout and type; the layer itself costs `share`
    of its price for inputs in layout `come`; `next` is the state's number after it and `held` the
    bytes of memory in use while it runs, scratch left out. `casts`: what became codes, or was made
    of them, for it, and in which layouts."""

    extra: float
    share: float
    come: str
    next: int
    held: int
    casts: tuple[Way, ...] = ()


class Walk:
    """The deterministic decision process over a space. Everything is found lazily and kept; two
    walks over the same space number states alike if they are walked alike."""

    def __init__(self, space: Space):
        self.space = space
        self.stages = space.stages
        self.tensors = space.tensors
        self.facts = facts_of(space)
        self.makes = {s.name: tuple(filter(None, s.node.outputs)) for s in self.stages}
        self._states: list[dict[State, int]] = [{} for _ in range(len(self.stages) + 1)]
        self._listed: list[list[State]] = [[] for _ in self._states]
        self._moves: dict[tuple[int, int, int], Move] = {}
        self._classes = [_classes(s.actions) for s in self.stages]
        self._allowed: dict[tuple[int, int], tuple[int, ...]] = {}

    @property
    def start(self) -> int:
        """Number of the state before the first stage."""
        ports = self.space.codes.ports if self.space.codes else ()
        names = [coded(t) if t in ports else t for t in self.space.graph.inputs]
        inputs = {t: Held("nchw", True, False, _NO_COPY) for t in names}
        return self._number(0, inputs)

    def state(self, stage: int, number: int) -> State:
        """The state of that number before a stage."""
        return self._listed[stage][number]

    def states(self, stage: int) -> int:
        """How many states were met before a stage."""
        return len(self._listed[stage])

    def actions(self, stage: int, number: int) -> tuple[int, ...]:
        """The actions that may be taken; one where nothing is to be decided (-1: nothing to do).
        Those that need a conversion which cannot be had are left out."""
        key = stage, number
        if key not in self._allowed:
            self._allowed[key] = self._find_actions(stage, number)
        return self._allowed[key]

    def _find_actions(self, stage: int, number: int) -> tuple[int, ...]:
        here = self.stages[stage]
        taken = _inside(self.state(stage, number), here.name)
        if not here.actions or taken:
            return (-1,)
        return tuple(
            i for i in range(len(here.actions)) if self.move(stage, number, i).extra < float("inf")
        )

    def move(self, stage: int, number: int, action: int) -> Move:
        """Take an action."""
        group = self._classes[stage][action] if action >= 0 else -1
        key = stage, number, group
        found = self._moves.get(key)
        if found is None:
            found = self._moves[key] = self._find_move(stage, number, action)
        return found

    def cost(self, stage: int, number: int, action: int) -> float:
        """What an action costs here, conversions included."""
        move = self.move(stage, number, action)
        if action < 0:
            return move.extra
        return move.extra + move.share * self.stages[stage].actions[action].prices[move.come].cost

    def _find_move(self, stage: int, number: int, action: int) -> Move:
        here = self.stages[stage]
        step = _Step(self, stage, dict(self.state(stage, number)))
        node = here.node
        share, come = 0.0, ""
        if action >= 0:
            chosen = here.actions[action]
            share, come = step.take(node, chosen)
        elif not here.actions:
            step.view(node)
        else:
            step.follow(node)
        held = step.bytes()
        after = self._number(stage + 1, step.held)
        return Move(step.extra, share, come, after, held, tuple(step.casts))

    def _number(self, stage: int, held: Mapping[str, Held | Action]) -> int:
        """The number of a state, stripped of what no later stage asks for."""
        kept = []
        for tensor, what in sorted(held.items(), key=lambda p: p[0]):
            if isinstance(what, Action):
                kept.append((tensor, what))
            elif self.facts[tensor].last >= stage:
                facts = self.facts[tensor]
                kept.append((tensor, what if facts.joined else what._replace(view=False)))
        state = tuple(kept)
        known = self._states[stage]
        if state not in known:
            known[state] = len(known)
            self._listed[stage].append(state)
        return known[state]


class _Step:
    """One transition in the making."""

    def __init__(self, walk: Walk, stage: int, held: dict[str, Held | Action]):
        self.walk, self.stage, self.held = walk, stage, held
        self.tensors, self.constants = walk.tensors, walk.space.graph.constants
        self.extra = 0.0
        self.casts: list[Way] = []
        self.parts: set[str] = set()  # lie inside a concatenation made here

    def take(self, node: Node, action: Action) -> tuple[float, str]:
        """(share of its price that the layer costs, layout of its inputs)"""
        if node.op == "Transpose":
            return self._transpose(node, action)
        if node.op == "Concat":
            return self._concat(node, action)
        for tensor, layout in action.reads:
            self._need(tensor, layout)
        if action.group:
            # the end needs to know no more than this
            self.held[f"+{action.group[-1]}"] = replace(
                action, kernel="", prices={}, reads=(), inplace=""
            )
        else:
            self._define(node, action.layout, action)
        return 1.0, next(iter(action.prices))

    def follow(self, node: Node) -> None:
        """A node inside a group: nothing to do, but at its end."""
        action = self.held.pop(f"+{node.name}", None)
        if isinstance(action, Action):
            for tensor, layout in action.later:
                self._need(tensor, layout)
            self._define(node, action.layout, action)

    def view(self, node: Node) -> None:
        """A reshape: another name for its input, which may have to lie in ONNX order for it."""
        source, target = self.tensors[node.inputs[0]], self.tensors[node.outputs[0]]
        layout, name = "nchw", source.name
        codes = all(coded(t) in self.tensors for t in (source.name, target.name))
        if codes and coded(name) in self.held:
            name = coded(name)
        if name not in self.held and other_form(name) in self.held:
            self._cast(name, layout)
        if name in self.held:
            layout = self._held(name).layout
            if not reshape_keeps(layout, source.shape, target.shape):
                layout = "nchw"
            self._need(name, layout)
        self._define(node, layout, codes=name != source.name)

    def bytes(self) -> int:
        """Arena in use while this step runs: all that is held, and what it has read."""
        total = 0
        for tensor, what in self.held.items():
            if isinstance(what, Held):
                facts = self.walk.facts[tensor]
                own = not facts.given and tensor not in self.parts
                total += facts.bytes * (int(own) + int(what.copy == _OWN_COPY))
            else:  # what a group leaves is written while its first node is
                made = self.walk.makes[what.group[-1]]
                total += sum(f.bytes for t in made if not (f := self.walk.facts[t]).given)
        return total

    def _held(self, tensor: str) -> Held:
        found = self.held[tensor]
        assert isinstance(found, Held)
        return found

    def _need(self, tensor: str, layout: str) -> None:
        """Have a tensor in `layout`, converted if it is not there yet."""
        if tensor not in self.held:
            self._cast(tensor, layout)
        have = self._held(tensor)
        if have.layout == layout or have.copy or len(self.tensors[tensor].shape) < 3:
            return
        if same_memory(self.tensors[tensor].shape, have.layout, layout):
            self.held[tensor] = have._replace(copy=_VIEW_COPY)
            return
        self.extra += self.walk.space.conversions[tensor, have.layout]
        self.held[tensor] = have._replace(copy=_OWN_COPY)

    def _cast(self, target: str, layout: str) -> None:
        """Make codes of a tensor, or a tensor of codes, before or after the layout is changed, or
        at once: whatever is cheapest by the table."""
        source, casts = other_form(target), self.walk.space.casts
        have, shape = self._held(source), self.tensors[target].shape

        def cost(way: tuple[str, str]) -> float:
            come, at = way
            if (target, come, at) not in casts:
                return float("inf")
            before = 0.0 if have.copy else self._change(source, have.layout, come)
            return before + casts[target, come, at].cost + self._change(target, at, layout)

        come, at = min(_WAYS if len(shape) > 2 else _WAYS[:1], key=cost)
        self._need(source, come)
        found = casts.get((target, come, at))
        self.extra += found.cost if found else float("inf")
        self.casts.append((target, come, at))
        self.held[target] = Held(at, False, False, _NO_COPY)

    def _change(self, tensor: str, come: str, go: str) -> float:
        """What a change of layout costs; nothing where none is needed."""
        return 0.0 if come == go else self.walk.space.conversions.get((tensor, come), 0.0)

    def _define(
        self, node: Node, layout: str, action: Action | None = None, codes: bool = False
    ) -> None:
        """Results, of which those that are not an action's are only another name."""
        for name in filter(None, node.outputs):
            tensor = action.made(name) if action else coded(name) if codes else name
            facts = self.walk.facts[tensor]
            joined = facts.joined and facts.alone and not facts.output
            pitch = action is not None and action.pitch
            self.held[tensor] = Held(layout, action is None, pitch and joined, _NO_COPY)
            for form in (name, coded(name)):  # the caller wants it in ONNX order
                if form in self.walk.facts and self.walk.facts[form].output:
                    self._need(form, "nchw")

    def _transpose(self, node: Node, action: Action) -> tuple[float, str]:
        source = action.form(node.inputs[0])
        if source not in self.held:
            self._cast(source, action.layout)
        shape = self.tensors[source].shape
        come = self._held(source).layout
        for layout in (action.layout, "nhwc", "nchw"):
            before, _, perm = transposition(shape, node.attrs["perm"], come, layout)
            if moves_nothing(before, perm):
                self._define(node, layout, codes=bool(action.bits))
                return 0.0, come
        self._define(node, action.layout, replace(action, pitch=False))
        return 1.0, come if come in action.prices else action.layout

    def _concat(self, node: Node, action: Action) -> tuple[float, str]:
        """Parts whose producers can write there cost nothing, others are copied."""
        shape = memory_shape(self.tensors[node.outputs[0]].shape, action.layout)
        axis = permutation(action.layout, len(shape)).index(node.attrs["axis"])
        whole = all(extent == 1 for extent in shape[:axis])
        pixels = action.layout == "nhwc" and node.attrs["axis"] == 1 and len(shape) > 2
        copied = 0
        for tensor in node.inputs:
            size = self.tensors[tensor].size
            if tensor in self.constants:
                copied += size
                continue
            name = action.form(tensor)
            self._need(name, action.layout)
            if not self._claim(name, action.layout, whole, pixels):
                copied += size
        self._define(node, action.layout, replace(action, pitch=False))
        return copied / self.tensors[node.outputs[0]].size, action.layout

    def _claim(self, tensor: str, layout: str, whole: bool, pixels: bool) -> bool:
        """May the memory of this tensor lie inside the concatenation? Then it does from now on."""
        have = self._held(tensor)
        if self.walk.facts[tensor].output:
            return False
        other = have.layout != layout and len(self.tensors[tensor].shape) > 2
        if have.copy == _VIEW_COPY if other else have.view:
            return False
        if not whole and not (pixels and have.pitch and not other):
            return False
        mark = have._replace(copy=_VIEW_COPY) if other else have._replace(view=True)
        self.held[tensor] = mark
        self.parts.add(tensor)
        return True


def _classes(actions: tuple[Action, ...]) -> list[int]:
    """Actions that lead to the same state have the same number."""
    known: dict[tuple, int] = {}
    return [
        known.setdefault((a.layout, a.reads, a.later, a.group, a.pitch, a.bits > 0, a.reals,
                          tuple(a.prices)),
                         len(known))
        for a in actions
    ]  # fmt: skip


def _inside(state: State, name: str) -> bool:
    """Is a node part of a group that was begun?"""
    return any(isinstance(what, Action) and name in what.group for _, what in state)
