"""The list of operators from which importer, shape rules, references and tests derive."""

from codegen.ops import (
    chain,
    chain_pair,
    composite,
    conv,
    dense,
    elementwise,
    integer,
    microsoft,
    movement,
    normalise,
    pool,
    quantised,
    reduce,
    resize,
    shape,
    slices,
    softmax,
)
from codegen.ops.base import OpDef

FAMILIES = (
    conv,
    chain,
    chain_pair,
    pool,
    dense,
    quantised,
    integer,
    microsoft,
    elementwise,
    shape,
    normalise,
    softmax,
    reduce,
    slices,
    movement,
    resize,
    composite,
)
OPS: dict[str, OpDef] = {op.name: op for family in FAMILIES for op in family.OPS}
