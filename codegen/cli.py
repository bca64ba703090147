"""The command line. Verbs come from the entry-point group `codegen.verbs`, so that other
packages can add theirs.

Exit codes: 0 everything held; 1 a build, run or comparison failed; 2 the input was wrong (one
line says what).
"""

import sys
from importlib.metadata import entry_points

import click

from codegen import __version__
from codegen.errors import CodegenError


class _Verbs(click.Group):
    """Loads a verb only when it is called, so that `--help` of one does not import all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(e.name for e in entry_points(group="codegen.verbs"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = [e for e in entry_points(group="codegen.verbs") if e.name == cmd_name]
        return found[0].load() if found else None


@click.group(cls=_Verbs, epilog=__doc__.split("\n\n")[1])
@click.version_option(__version__, prog_name="codegen")
def cli() -> None:
    """Compile a trained ONNX network into a small standalone C library for one Arm board."""


def main(args: list[str] | None = None) -> None:
    """Entry point of the console script."""
    try:
        code = cli.main(args, prog_name="codegen", standalone_mode=False)
    except CodegenError as e:
        click.echo(f"error: {e}", err=True)
        code = 2
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        code = 130
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
