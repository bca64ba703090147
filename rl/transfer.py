"""What a decision is called once the network is taken away, so that values learnt on one network
start the search on another: the layer's signature, where its inputs lie, and the action.

Measurements carry over by themselves, for the store has them by layer. Values are files
(learnt.json), named by whoever wants to start from them, so that a search depends on nothing that
its user does not see.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from codegen.errors import CodegenError
from codegen.signature import signature_of
from rl.decisions import Place
from rl.walk import Held, Walk


class Keys:
    """Names of the decisions of a walk, found once each."""

    def __init__(self, walk: Walk):
        self.walk = walk
        self._layers: dict[int, str] = {}
        self._known: dict[tuple[int, int], str] = {}

    def __call__(self, place: Place, action: int) -> str:
        """The name of an action at a place."""
        key = place.number, action
        if key not in self._known:
            self._known[key] = self._name(place, action)
        return self._known[key]

    def _name(self, place: Place, action: int) -> str:
        stage = self.walk.stages[place.stage]
        if place.stage not in self._layers:
            self._layers[place.stage] = signature_of(self.walk.space.graph, stage.node).key
        held = dict(self.walk.state(place.stage, place.state))
        inputs = [held[t] for t in stage.node.reads if t in held]
        lie = ",".join(f"{h.layout}{h.copy}" for h in inputs if isinstance(h, Held))
        chosen = stage.actions[action]
        return f"{self._layers[place.stage]} {lie} {chosen} {len(chosen.group)}"


FILE = "learnt.json"


def to_text(learnt: Mapping[str, float]) -> str:
    """learnt.json: one line per decision."""
    lines = [f"  {json.dumps(k)}: {v}" for k, v in sorted(learnt.items())]
    return '{\n "schema": 1,\n "values": {\n' + ",\n".join(lines) + "\n }\n}\n"


def read_learnt(paths: Iterable[Path]) -> dict[str, float]:
    """Values of one or several searches (their folders, or files), means where they speak of the
    same decision; CodegenError for what is none."""
    found: dict[str, list[float]] = {}
    for path in paths:
        file = path / FILE if path.is_dir() else path
        try:
            values = json.loads(file.read_text())["values"]
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise CodegenError(
                str(file),
                f"cannot be read as learnt values ({type(e).__name__}: {e})",
                f"{FILE} as `codegen tune` writes it",
                "name the folder of a search with Q-learning",
            ) from None
    return {name: sum(values) / len(values) for name, values in found.items()}
