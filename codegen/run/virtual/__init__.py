"""Cycles of AArch64 code without a board: qemu counts, llvm-mca or the in-order model times."""

from codegen.run.virtual.runner import WARM_UP, WHOLE, VirtualRunner, missing

__all__ = ["VirtualRunner", "WARM_UP", "WHOLE", "missing"]
