"""codegen pick: a plan from a front."""

import json
from pathlib import Path

import click

from codegen.models.fetch import write_atomically
from codegen.plan import plan_of_dict
from codegen.verbs.options import JSON
from rl.front_file import pick as choose
from rl.limits import Limits
from rl.verbs.sizes import (
    AGREEMENT,
    COSINE,
    DROP,
    parse_agreement,
    parse_bytes,
    parse_cosine,
    parse_drop,
    parse_error,
    parse_ms,
)


@click.command()
@click.argument("front", type=click.Path(path_type=Path))
@click.option("--max-arena", default="", metavar="BYTES", help="Largest arena, e.g. 512k or 2M.")
@click.option("--max-flash", default="", metavar="BYTES", help="Largest code and weights.")
@click.option("--max-latency", default=0.0, metavar="MS", help="Longest run, in milliseconds.")
@click.option("--max-error", default=0.0, metavar="X", help="Largest max_rel_error.")
@click.option("--max-accuracy-drop", default="", metavar="X%", help=DROP)
@click.option("--min-cosine", default=0.0, metavar="C", help=COSINE)
@click.option("--min-agreement", default="", metavar="X%", help=AGREEMENT)
@click.option("--out", default=Path("plan.json"), type=click.Path(path_type=Path, dir_okay=False),
              show_default=True, help="Where the plan goes.")  # fmt: skip
@JSON
def pick(
    front: Path,
    max_arena: str,
    max_flash: str,
    max_latency: float,
    max_error: float,
    max_accuracy_drop: str,
    min_cosine: float,
    min_agreement: str,
    out: Path,
    as_json: bool,
) -> None:
    """Write the fastest plan of a front.json (`codegen tune --pareto`) that keeps the limits."""
    limits = Limits(parse_bytes("--max-arena", max_arena), parse_bytes("--max-flash", max_flash),
                    parse_ms("--max-latency", max_latency),
                    parse_error("--max-error", max_error),
                    parse_drop("--max-accuracy-drop", max_accuracy_drop),
                    parse_cosine("--min-cosine", min_cosine),
                    parse_agreement("--min-agreement", min_agreement))  # fmt: skip
    point = choose(front, limits)
    write_atomically(out, plan_of_dict(point["plan"], str(front)).to_json().encode())
    figures = {k: v for k, v in point.items() if k != "plan"}
    if as_json:
        click.echo(json.dumps({"plan": out.name, **figures}, indent=1))
    else:
        click.echo(f"{out}: {point['latency_ms']:.3f} ms, {point['arena_bytes']:,} bytes of arena, "
                   f"{point['flash_bytes']:,} of flash")  # fmt: skip
