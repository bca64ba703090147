"""Packages that only fetching needs (the extra `models`), with an error that says how to get
them."""

from importlib import import_module
from types import ModuleType

from codegen.errors import CodegenError


def require(
    module: str, package: str, purpose: str, where: str = "codegen models"
) -> ModuleType:
    """Import `module`; CodegenError naming the extra where its package is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise CodegenError(
            where,
            f"package '{package}' is not installed",
            f"{purpose} needs it",
            "run `pip install 'codegen[models]'`",
        ) from None
