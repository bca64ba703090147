"""How much stack a compiled library needs: the call graph and frames that the compiler wrote."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_NODE = re.compile(r'^node: \{ title: "(.+?)" label: "(.*?)"', re.M)
_EDGE = re.compile(r'^edge: \{ sourcename: "(.+?)" targetname: "(.+?)"', re.M)
_BYTES = re.compile(r"\\n(\d+) bytes \((\w[\w,]*)\)")


@dataclass
class CallGraph:
    """Bytes of each function's frame, and whom it calls. Functions that are not in `frames` (libm,
    memcpy) belong to somebody else."""

    frames: dict[str, int] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)

    def deepest(self, function: str) -> int:
        """Bytes of the deepest chain of frames from `function` on; ValueError for recursion."""
        return _deepest(self, function, {}, ())


def _deepest(
    graph: CallGraph, function: str, known: dict[str, int], above: tuple[str, ...]
) -> int:
    if function in above:
        raise ValueError(f"{function} calls itself")
    if function not in known:
        below = (
            _deepest(graph, callee, known, (*above, function))
            for callee in graph.calls.get(function, ())
        )
        known[function] = graph.frames.get(function, 0) + max(below, default=0)
    return known[function]


def read_callgraph(files: Iterable[Path]) -> CallGraph:
    """gcc's -fcallgraph-info=su: one .ci file per object, nodes with frames and edges."""
    graph = CallGraph()
    for path in files:
        text = path.read_text()
        for title, label in _NODE.findall(text):
            frame = _BYTES.search(label)
            if frame:
                graph.frames[title] = int(frame[1])
        for caller, callee in _EDGE.findall(text):
            graph.calls.setdefault(caller, set()).add(callee)
    return graph


def read_frames(files: Iterable[Path], calls: Mapping[str, Iterable[str]]) -> CallGraph:
    """-fstack-usage as clang has it: one .su file per object, `where:function<tab>bytes<tab>kind`.

    It names no edges: `calls` gives those between the functions that the generator wrote, and
    whatever else a file defines is counted as called by each of them (an upper bound).
    """
    graph = CallGraph(calls={k: set(v) for k, v in calls.items()})
    listed = {*calls, *(c for v in calls.values() for c in v)}
    for path in files:
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        frames = {row[0].rsplit(":", 1)[-1]: int(row[1]) for row in rows}
        helpers = sum(size for name, size in frames.items() if name not in listed)
        for name in listed & set(frames):
            graph.frames[name] = frames[name] + helpers
    return graph
