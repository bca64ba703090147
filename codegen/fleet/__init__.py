"""Many boards of one kind behind one queue, on Dask distributed (the extra `fleet`)."""

from codegen.fleet.fleet import Fleet

__all__ = ["Fleet"]
