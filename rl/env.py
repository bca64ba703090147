"""The search as a Gymnasium environment: one episode walks the layers in execution order, one
action is the candidate of a layer, the reward is the negative of its regret (rl/decisions.py) in
relation to the network's least cost."""

import math
from typing import Any

import gymnasium
import numpy as np

from codegen.layer import layer_of
from codegen.ops import OPS
from codegen.types import DType
from rl.assignment import Choices
from rl.codes import coded
from rl.decisions import Decisions, Place
from rl.reward import LATENCY, Goal, reward
from rl.walk import Held, Walk

_EDGES = 4  # incoming tensors that the observation describes
_PER_EDGE = 5  # nchw, nhwc, copied, codes of int8, bytes
_LAYER = 8
_NOT_AN_ACTION = -1.0  # the reward for an action that the mask forbids; it ends nothing


class PlanEnv(gymnasium.Env):
    """Observation: `_LAYER` numbers of the layer, then for each of four incoming tensors its
    layout, type and size, all about 0 to 1. An action that the mask forbids is punished and
    replaced by the worst that it allows, so that agents without masks can learn, too. After the
    last step `info` has `cost` (the goal's value) and `choices`."""

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, walk: Walk, goal: Goal = LATENCY):
        self.walk, self.goal = walk, goal
        self.decisions = Decisions(walk, goal)
        self._families = sorted({OPS[s.node.op].family for s in walk.stages})
        self._features = [self._layer(i) for i in range(len(walk.stages))]
        most = max((len(s.actions) for s in walk.stages), default=1)
        size = _LAYER + _EDGES * _PER_EDGE
        self.action_space = gymnasium.spaces.Discrete(max(1, most))
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (size,), np.float32)
        self._place: Place | None = None
        self._taken: list[int] = []
        self._regret = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Back to the first decision."""
        super().reset(seed=seed)
        self._place, self._taken, self._regret = self.decisions.begin, [], 0.0
        return self._observation(), {"action_mask": self.action_masks()}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a candidate. A network without decisions ends at once."""
        got, place = 0.0, self._place
        if place is not None:
            self.decisions.expand(place)
            k = int(action)
            if k >= len(place.actions):
                k, got = place.regrets.index(max(place.regrets)), _NOT_AN_ACTION
            got += reward(place.regrets[k], self.decisions.scale)
            self._regret += place.regrets[k]
            self._taken.append(k)
            self._place = place.after[k]
        over = self._place is None
        info: dict[str, Any] = {"action_mask": self.action_masks()}
        if over:
            info |= {"cost": self.decisions.value(self._regret), "choices": self.choices}
        return self._observation(), float(got), over, False, info

    def action_masks(self) -> np.ndarray:
        """Which actions the place allows (the name that sb3-contrib asks for)."""
        mask = np.zeros(int(self.action_space.n), bool)
        mask[: len(self._place.actions) if self._place else 1] = True
        return mask

    @property
    def choices(self) -> Choices:
        """The plan of an episode that is over."""
        return self.decisions.choices(self._taken)

    def _layer(self, i: int) -> np.ndarray:
        """What a layer is: its place, operator, work, sizes and how many candidates it has."""
        stages, graph = self.walk.stages, self.walk.space.graph
        node = stages[i].node
        op = OPS[node.op]
        out = graph.tensors[node.outputs[0]]
        work = op.macs(layer_of(graph, node, "nchw").dims) if op.macs else out.size
        weights = sum(graph.tensors[t].bytes for t in node.reads if t in graph.constants)
        channels = out.shape[1] if len(out.shape) > 1 else 1
        return np.array([
            i / len(stages),
            (self._families.index(op.family) + 1) / (len(self._families) + 1),
            _log(work, 1e10), _log(weights, 1e9), _log(out.bytes, 1e9), _log(channels, 1e5),
            len(stages[i].actions) / 256, 0.0,
        ], np.float32)  # fmt: skip

    def _observation(self) -> np.ndarray:
        out = np.zeros(self.observation_space.shape, np.float32)
        place = self._place
        if place is None:
            return out
        tensors = self.walk.tensors
        out[:_LAYER] = self._features[place.stage]
        held = dict(self.walk.state(place.stage, place.state))
        limit = self.goal.max_held or self.walk.space.board.ram_bytes
        used = sum(tensors[t].bytes for t, h in held.items() if isinstance(h, Held))
        out[_LAYER - 1] = min(1.0, used / limit) if limit else 0.0
        names = dict.fromkeys(self.walk.stages[place.stage].node.reads)
        reads = [f for t in names for f in (t, coded(t)) if f in held]
        for i, tensor in enumerate(reads[:_EDGES]):
            h = held[tensor]
            if isinstance(h, Held):
                at = _LAYER + i * _PER_EDGE
                out[at : at + _PER_EDGE] = (
                    h.layout == "nchw" or h.copy > 0, h.layout == "nhwc" or h.copy > 0,
                    h.copy / 2, tensors[tensor].dtype == DType.I8, _log(tensors[tensor].bytes, 1e9),
                )  # fmt: skip
        return np.clip(out, 0.0, 1.0)


def _log(value: float, most: float) -> float:
    """0 to 1 for sizes that span many decades."""
    return math.log1p(value) / math.log1p(most)
