"""TEMPORARY"""

import click


@click.command()
def size():
    pass
