"""codegen ops: the operators that can be imported and the kernels that compute them."""

import json
from typing import Any

import click

from codegen.errors import CodegenError
from codegen.kernels import Kernel, family_rows
from codegen.onnx_file import standard_operators
from codegen.ops import OPS
from codegen.verbs.options import JSON, print_rows


@click.command()
@click.argument("name", default="")
@JSON
def ops(name: str, as_json: bool) -> None:
    """List the ONNX operators that are supported, or (with NAME) every kernel row that computes
    one of them."""
    if name and name not in OPS:
        raise CodegenError(
            "codegen ops",
            f"no operator {name!r}",
            f"{len(OPS)} are known",
            "run `codegen ops` for the list",
        )
    rows = _kernels(name) if name else _operators()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    print_rows(rows)


def _operators() -> list[dict[str, Any]]:
    """ONNX operators only: the canonical forms behind them are an inner matter."""
    standard = standard_operators()
    out = []
    for op in sorted(OPS.values(), key=lambda o: o.name):
        if op.name in standard or op.domain:
            how = (
                "rewritten"
                if op.expand
                else "folded"
                if op.fold
                else "a view"
                if op.view
                else (f"{len(family_rows(op.family))} kernels")
            )
            name = f"{op.domain}.{op.name}" if op.domain else op.name
            out.append({"operator": name, "computed by": how, "attributes": ", ".join(op.attrs)})
    return out


def _kernels(name: str) -> list[dict[str, Any]]:
    return (
        [
            {
                "kernel": r.name,
                "layout": r.layout,
                "types": "/".join(r.dtype),
                "isa": r.isa,
                "needs": _needs(r),
            }
            for r in family_rows(OPS[name].family)
        ]
        if OPS[name].family
        else []
    )


def _needs(row: Kernel) -> str:
    parts = [
        f"{k} = {'/'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in row.when.items()
    ]
    parts += [f"{k} a multiple of {v}" for k, v in row.multiple_of.items()]
    return ", ".join(parts + [f"{k} at most {v}" for k, v in row.at_most.items()])
