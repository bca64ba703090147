"""codegen boards: the boards there are a file for, and how well the virtual ones predict the real
ones."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from codegen.board import Board, board_names, load_board
from codegen.errors import CodegenError
from codegen.run.virtual import missing
from codegen.validate import (
    PARAMS_VARIABLE,
    Case,
    compare,
    document,
    errors,
    find_params,
    fitted,
    measure_all,
    networks,
    reference,
    targets,
    toml_lines,
    tool_versions,
)
from codegen.validate.published import USES, Network, figures
from codegen.validate.summary import Comparison
from codegen.verbs.options import JSON, console, print_rows


@click.group(invoke_without_command=True)
@JSON
@click.pass_context
def boards(context: click.Context, as_json: bool) -> None:
    """List the boards that `--board` knows. A path to a TOML file of your own works as well."""
    if context.invoked_subcommand:
        return
    known = [load_board(n) for n in board_names()]
    if as_json:
        click.echo(json.dumps([asdict(b) for b in known], indent=1))
        return
    print_rows(
        [
            {
                "board": b.name,
                "core": b.core,
                "clock": f"{b.clock_hz / 1e9:.2f} GHz" if b.clock_hz else "",
                "isa": " ".join(b.isa),
                "runners": " ".join(b.runners),
                "what it is": b.title,
            }
            for b in known
        ]
    )


@boards.command()
@click.option(
    "--params",
    type=click.Path(path_type=Path),
    help="Folder with ncnn's benchmark definitions (benchmark/*.param of its sources). "
    f"Default: ${PARAMS_VARIABLE}.",
)
@click.option("--board", "names", multiple=True, help="Only this board. Repeatable.")
@click.option("--network", "nets", multiple=True, help="Only this network. Repeatable.")
@click.option(
    "--fit",
    "fitting",
    is_flag=True,
    help="Fit the penalties to the networks marked for it, print the lines for the boards' files, "
    "and compare with those.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the page docs/VALIDATION.md there."
)
@JSON
def validate(
    params: Path | None,
    names: tuple[str, ...],
    nets: tuple[str, ...],
    fitting: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run ncnn under the virtual boards and compare with its published latencies.

    Exit code 1 where a network could not be run.
    """
    folder = find_params(params)
    chosen, models = _boards(names), _networks(nets)
    show = console(quiet=False)
    cases = measure_all(chosen, models, folder, lambda case: show.print(_progress(case)))
    if fitting:
        cases = fitted(cases)
    rows = compare(cases)
    by_name = {c.board.name: c.board for c in cases}
    if out and rows:
        _write(out, document(rows, list(by_name.values()), tool_versions()))
    if as_json:
        click.echo(json.dumps(_report(rows, cases, fitting), indent=1))
    else:
        _print(rows, list(by_name.values()) if fitting else ())
    if any(c.error for c in cases):
        raise SystemExit(1)


def _boards(names: Sequence[str]) -> list[Board]:
    known = [f.board for f in figures()]
    chosen = [load_board(n) for n in names or known]
    for board in chosen:
        if reference(board.name) is None:
            raise CodegenError(
                "--board", f"nothing was published for {board.name}",
                f"boards with figures: {', '.join(known)}", "name one of them",
            )  # fmt: skip
        problem = missing(board)
        if problem:
            raise CodegenError(
                "validate", problem, "the virtual board needs qemu and LLVM",
                "install what is missing; `codegen doctor` tells",
            )  # fmt: skip
    return chosen


def _networks(names: Sequence[str]) -> list[Network]:
    known = {n.name: n for n in networks()}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise CodegenError(
            "--network", f"{unknown[0]!r}", f"networks: {', '.join(known)}", "name one of them"
        )
    return [n for n in known.values() if not names or n.name in names]


def _progress(case: Case) -> str:
    where = f"{case.board.name} {case.network.name}"
    if case.work is None:
        return f"{where}: {case.error}"
    (row,) = compare([case])
    return f"{where}: {row.predicted_ms:.1f} ms, published {row.published_ms:.1f}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as e:
        raise CodegenError(
            f"--out {path}", e.strerror or str(e), "a file that can be written", "name another one"
        ) from None


def _report(rows: Sequence[Comparison], cases: Sequence[Case], fitting: bool) -> dict:
    failed = [{"board": c.board.name, "network": c.network.name, "error": c.error}
              for c in cases if c.error]  # fmt: skip
    report = {
        "rows": [{**asdict(r), "ratio": r.ratio} for r in rows],
        "targets": [asdict(t) for t in targets(rows)],
        "failed": failed,
    }
    if fitting:
        report["fitted"] = {c.board.name: asdict(c.board.cycle_model) for c in cases}
    return report


def _print(rows: Sequence[Comparison], refitted: Sequence[Board]) -> None:
    print_rows(
        [
            {
                "board": r.board,
                "network": r.network,
                "use": r.use,
                "predicted ms": f"{r.predicted_ms:.1f}",
                "published ms": f"{r.published_ms:.1f}",
                "ratio": f"{r.ratio:.2f}",
            }
            for r in rows
        ]
    )
    for board in dict.fromkeys(r.board for r in rows):
        for use in USES:
            found = errors([r for r in rows if r.board == board and r.use == use])
            if found:
                click.echo(f"{board}, {use}: mean error {found.mean:.1%}, "
                           f"bias {found.bias - 1:+.1%}")  # fmt: skip
    for t in targets(rows):
        click.echo(f"{t.what}: {t.found} (target {t.wanted}){'' if t.met else ', missed'}")
    for board in refitted:
        click.echo(f"\n# boards/{board.name}.toml\n{toml_lines(board.cycle_model)}")
