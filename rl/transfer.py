"""What a decision is called once the network is taken away, so that values learnt on one network
start the search on another: the layer's signature, where its inputs lie, and the action."""

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
