"""The virtual board against figures that were published for real boards."""

from codegen.validate.cases import Case, compare, fitted, measure_all, tool_versions
from codegen.validate.fit import parameters, toml_lines
from codegen.validate.measure import PARAMS_VARIABLE, find_params
from codegen.validate.page import document
from codegen.validate.published import networks, reference
from codegen.validate.summary import errors, targets

__all__ = [
    "PARAMS_VARIABLE",
    "Case",
    "compare",
    "document",
    "errors",
    "find_params",
    "fitted",
    "measure_all",
    "networks",
    "parameters",
    "reference",
    "targets",
    "toml_lines",
    "tool_versions",
]
