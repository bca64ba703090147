"""What the network says of its tensors, whatever the plan is."""

from dataclasses import dataclass, replace

from rl.codes import other_form
from rl.space import Space


@dataclass(frozen=True)
class Facts:
    """Of one tensor."""

    last: int  # stage of the last reader
    alone: bool  # read once
    joined: bool  # read by a concatenation
    output: bool
    given: bool  # an input or output of the network: not in the arena
    bytes: int


def facts_of(space: Space) -> dict[str, Facts]:
    """By tensor and codes of one, constants left out."""
    graph = space.graph
    last: dict[str, int] = {}
    reads: dict[str, int] = {}
    joined: set[str] = set()
    for i, stage in enumerate(space.stages):
        for tensor in stage.node.reads:
            last[tensor] = i
            reads[tensor] = reads.get(tensor, 0) + 1
            if stage.node.op == "Concat":
                joined.add(tensor)
    given = {*graph.inputs, *graph.outputs}
    out = {
        t.name: Facts(last.get(t.name, -1), reads.get(t.name, 0) == 1, t.name in joined,
                      t.name in graph.outputs, t.name in given, t.bytes)
        for t in graph.tensors.values() if t.name not in graph.constants
    }  # fmt: skip
    for codes in space.codes.tensors.values() if space.codes else ():
        # whoever reads the tensor may read its codes; the caller gets what is made of them, but of
        # ports the codes themselves
        name = other_form(codes.name)
        f = out[name]
        coded = replace(f, given=False, output=False, bytes=codes.bytes,
                        alone=f.alone and not f.output)  # fmt: skip
        if name in space.codes.ports:
            out[name] = replace(f, given=False, output=False)
            coded = replace(coded, given=True, output=f.output)
        out[codes.name] = coded
    return out
