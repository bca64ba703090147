"""How large an engine is."""

from functools import lru_cache

from codegen.footprint import sections
from codegen.models.catalog import Package
from codegen.peers.base import PeerError
from codegen.peers.sysroot import board_package


@lru_cache
def library_bytes(package: Package, pattern: str) -> int:
    """Code, constants and initialised data of the one shared library in the board's wheel that
    matches `pattern`: its size once stripped, but for headers and padding."""
    found = sorted(board_package(package).glob(pattern))
    if not found:
        raise PeerError(f"{package.requirement} has no {pattern}")
    return sections(found[-1:]).rom
