"""The plan: which kernel computes which node. Plain JSON, versioned, diffable, checked before it
is believed."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.graph import Graph, Node
from codegen.groups import regroup
from codegen.kernels import family_rows, load_kernels, refusal
from codegen.layer import layer_of
from codegen.layout import LAYOUTS
from codegen.ops import OPS
from codegen.threads import check_threads
from codegen.types import WIDTHS

SCHEMA = 1
_TYPES = {
    "model_sha256": str, "board": str, "nodes": dict, "order": list, "conversions": list,
    "predicted": dict, "dtype": str,
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One node's kernel; `layout` says how its tensors of rank >= 3 lie in memory. `group` names
    the nodes that the kernel computes together, this one first (codegen/groups.py). `bits`: of the
    weights of a node that is computed in int8 in a network of floats; 0 for all others."""

    kernel: str
    layout: str
    group: tuple[str, ...] = ()
    bits: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The entry in the file."""
        group = {"group": list(self.group)} if self.group else {}
        bits = {"bits": self.bits} if self.bits else {}
        return {"kernel": self.kernel, "layout": self.layout, **group, **bits}


@dataclass(frozen=True)
class Plan:
    """A decision for every node that needs a kernel, by node name after the passes. `dtype`: f32,
    f16 or i8, in which the network is computed; nodes of f16 have casts among them. In a plan of i8
    the nodes with `bits` are in int8, with Quantize and Dequantize where they meet others."""

    board: str
    model_sha256: str
    nodes: Mapping[str, Choice]
    order: tuple[str, ...] = ()
    conversions: tuple[Mapping[str, str], ...] = ()
    threads: int = 1
    predicted: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "f32"

    def to_json(self) -> str:
        """The file: one line per node, so that two plans can be compared with diff."""
        head = {
            "schema": SCHEMA,
            "model_sha256": self.model_sha256,
            "board": self.board,
            "threads": self.threads,
            **({"dtype": self.dtype} if self.dtype != "f32" else {}),
        }
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}," for k, v in head.items()]
        rows = [
            f"    {json.dumps(n)}: {json.dumps(c.to_dict())}" for n, c in self.nodes.items()
        ]
        moves = [f"    {json.dumps(dict(c))}" for c in self.conversions]
        lines += [
            '  "nodes": {',
            ",\n".join(rows),
            "  },",
            '  "conversions": [',
            *([",\n".join(moves)] if moves else []),
            "  ],",
            f'  "order": {json.dumps(list(self.order))},',
            f'  "predicted": {json.dumps(dict(self.predicted))}',
        ]
        return "{\n" + "\n".join(lines) + "\n}\n"

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups by the name of their first node."""
        return {n: c.group for n, c in self.nodes.items() if c.group}

    @property
    def bits(self) -> dict[str, int]:
        """The nodes in int8, with the width of their weights."""
        return {n: c.bits for n, c in self.nodes.items() if c.bits}

    @property
    def sha256(self) -> str:
        """Identity of the decisions (not of predictions)."""
        text = json.dumps(
            [
                self.model_sha256,
                self.board,
                self.threads,
                list(self.order),
                {n: c.to_dict() for n, c in sorted(self.nodes.items())},
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()


def needs_kernel(node: Node) -> bool:
    """Views are only other names for their input."""
    return not OPS[node.op].view


def read_plan(path: Path) -> Plan:
    """Parse a plan file; CodegenError where it is not one."""
    where = str(path)
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise CodegenError(
            where, "no such file", "a plan.json is needed", "check the path"
        ) from None
    except (OSError, ValueError, RecursionError) as e:
        raise CodegenError(
            where, f"not JSON ({e})", "a plan written by codegen", "fix the file"
        ) from None
    return plan_of_dict(raw, where)


def plan_of_dict(raw: Any, where: str) -> Plan:
    """The plan that parsed JSON is; CodegenError where it is none."""
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise CodegenError(
            where, f"schema {found!r}", f"schema {SCHEMA} is read", "make the plan again"
        )
    known = {
        "schema",
        "model_sha256",
        "board",
        "threads",
        "dtype",
        "nodes",
        "conversions",
        "order",
        "predicted",
    }
    unknown = sorted(set(raw) - known)
    if unknown:
        raise CodegenError(
            where,
            f"unknown key {unknown[0]!r}",
            f"known keys: {', '.join(sorted(known))}",
            "remove it",
        )
    _check_types(where, raw)
    threads = raw.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise CodegenError(where, f"threads {threads!r}", "1 or more", "fix the number")
    nodes = {name: _choice(where, name, entry) for name, entry in raw["nodes"].items()}
    return Plan(
        raw["board"],
        raw["model_sha256"],
        nodes,
        tuple(raw.get("order", ())),
        tuple(raw.get("conversions", ())),
        threads,
        raw.get("predicted", {}),
        raw.get("dtype", "f32"),
    )


def _check_types(where: str, raw: Mapping[str, Any]) -> None:
    lists = {"order": str, "conversions": dict}
    optional = {"order": [], "conversions": [], "predicted": {}, "dtype": "f32"}
    for key, kind in _TYPES.items():
        value = raw.get(key, optional.get(key))
        each = lists.get(key, object)
        if not isinstance(value, kind) or not all(isinstance(v, each) for v in value):
            of = f" of {each.__name__}" if key in lists else ""
            raise CodegenError(
                where, f"{key} is {value!r}", f"a {kind.__name__}{of} is needed", "fix the file"
            )


def _choice(where: str, name: str, entry: Any) -> Choice:
    group = entry.get("group", []) if isinstance(entry, dict) else None
    if (
        not isinstance(entry, dict)
        or set(entry) - {"kernel", "layout", "group", "bits"}
        or not isinstance(entry.get("kernel"), str)
        or not isinstance(group, list)
        or not all(isinstance(n, str) for n in group)
        or type(entry.get("bits", 0)) is not int
        or entry.get("bits", 0) not in (0, *WIDTHS)
    ):
        raise CodegenError(
            where,
            f"entry of node {name!r} is {entry!r}",
            'it needs {"kernel": ..., "layout": ...} and may have {"group": [names of nodes]} and, '
            f'in int8, {{"bits": {WIDTHS[-1]} to {WIDTHS[0]}}}',
            "fix the entry",
        )
    layout = entry.get("layout", "nchw")
    if layout not in LAYOUTS:
        raise CodegenError(
            where,
            f"layout {layout!r} of node {name!r}",
            f"layouts: {', '.join(LAYOUTS)}",
            "name one",
        )
    return Choice(entry["kernel"], layout, tuple(group), entry.get("bits", 0))


def check_plan(
    plan: Plan, graph: Graph, board: Board, model_sha256: str, where: str = "plan"
) -> None:
    """CodegenError unless every node has a kernel that can compute it on this board."""
    if plan.model_sha256 != model_sha256:
        raise CodegenError(
            where,
            f"made for model {plan.model_sha256[:12]}…",
            f"this model is {model_sha256[:12]}…",
            "make a plan for this model (and --shape)",
        )
    if plan.board != board.name:
        raise CodegenError(
            where,
            f"made for board {plan.board!r}",
            f"this build is for {board.name!r}",
            "make a plan for this board, or change its `board` key if the cores are alike",
        )
    check_threads(plan.threads, board, where)
    graph = regroup(graph, plan.groups, where)
    wanted = {n.name: n for n in graph.nodes if needs_kernel(n)}
    for name in plan.nodes:
        if name not in wanted:
            near = difflib.get_close_matches(name, wanted, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CodegenError(
                where,
                f"node {name!r} is not in the network{hint}",
                f"{len(wanted)} nodes have kernels",
                "make the plan again for this model",
            )
    for name, node in wanted.items():
        if name not in plan.nodes:
            raise CodegenError(
                where,
                f"node {name!r} ({node.op}) has no kernel",
                "every node needs one",
                "make the plan again or add the node",
            )
        _check_choice(plan.nodes[name], graph, node, board, where)
    if plan.order and sorted(plan.order) != sorted(wanted):
        odd = sorted(set(plan.order) ^ set(wanted)) or ["a node twice"]
        raise CodegenError(
            where,
            f"order does not list every node once ({odd[0]!r})",
            "each node exactly once",
            "remove the key `order` to have it chosen",
        )


def _check_choice(choice: Choice, graph: Graph, node: Node, board: Board, where: str) -> None:
    family = OPS[node.op].family
    rows = load_kernels()
    if choice.kernel not in rows or rows[choice.kernel].family != family:
        have = ", ".join(r.name for r in family_rows(family))
        raise CodegenError(
            where,
            f"kernel {choice.kernel!r} for node {node.name!r} ({family})",
            f"templates/{family}/kernels.toml has: {have}",
            "name one of them",
        )
    row = rows[choice.kernel]
    if row.layout not in ("any", choice.layout):
        raise CodegenError(
            where,
            f"layout {choice.layout!r} for node {node.name!r}",
            f"kernel {row.name} computes {row.layout}",
            "change the layout or the kernel",
        )
    layers = [layer_of(graph, node, choice.layout, come) for come in LAYOUTS]
    reasons = [refusal(row, layer, tuple(board.isa)) for layer in layers]
    if all(reasons):
        raise CodegenError(
            where,
            f"kernel {row.name!r} cannot compute node {node.name!r}: {reasons[0]}",
            "a row whose constraints hold",
            "choose another kernel",
        )
