"""Which elements of a buffer a value or a step touches, and which steps must therefore precede
which."""

from collections.abc import Iterator
from dataclasses import dataclass

from codegen.steps import Program, Step

ALIGN = 64  # one cache line on every Cortex-A; also what aligned NEON loads and stores like


def aligned(size: int) -> int:
    """Bytes that a buffer of `size` bytes takes."""
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True)
class Region:
    """`rows` of `cols` elements, `pitch` apart, from element `first` of the memory of `root`."""

    root: str
    first: int
    rows: int
    cols: int
    pitch: int

    @property
    def end(self) -> int:
        """One past the last element."""
        return self.first + (self.rows - 1) * self.pitch + self.cols


def region(program: Program, key: str) -> Region:
    """Where a value lies."""
    root, first, pitch = program.root(key)
    tensor = program.values[key].tensor
    if not pitch or not tensor.size:
        return Region(root, first, 1, tensor.size, 0)
    channels = tensor.shape[1]
    return Region(root, first, tensor.size // channels, channels, pitch)


def written(program: Program, step: Step) -> list[Region]:
    """What a step writes: its outputs, or one part of a concatenation."""
    if step.op != "Concat":
        return [region(program, key) for key in step.outputs]
    root, first, _ = program.root(step.outputs[0])
    d = step.dims
    return [Region(root, first + step.offset, d["rows"], d["cols"], d["yp"])]


def overlap(a: Region, b: Region) -> bool:
    """Do two regions share an element? Parts of one concatenation share the pitch and lie side by
    side."""
    if a.root != b.root or not (a.first < b.end and b.first < a.end):
        return False
    if a.rows == 1 or b.rows == 1 or a.pitch != b.pitch:
        return True
    gap = (b.first - a.first) % a.pitch
    return gap < a.cols or gap + b.cols > a.pitch


def overwritable(program: Program, step: Step) -> Iterator[str]:
    """The operands on which a step may leave its result where nobody reads them later."""
    if not step.kernel.inplace or len(step.outputs) != 1:
        return
    out, fixed = step.outputs[0], outside(program)
    if out in program.views or out in fixed:
        return
    y, on_residual = program.values[out].tensor, step.kernel.inplace == "residual"
    for source in dict.fromkeys((step.residual,) if on_residual else step.args):
        if not source or source.startswith("&"):
            continue
        x, place = program.values[source].tensor, region(program, source)
        if (x.size, x.dtype.size) != (y.size, y.dtype.size) or place.pitch or place.root in fixed:
            continue
        # a convolution may lie on its residual, but not where that is its own input as well
        others = step.args if on_residual else set(step.args) - {source}
        if not any(overlap(place, region(program, r)) for r in others if not r.startswith("&")):
            yield source


def outside(program: Program) -> set[str]:
    """Owners of memory that the caller provides."""
    return {*program.inputs, *(program.root(o)[0] for o in program.outputs)}


def dependencies(program: Program) -> list[set[int]]:
    """Per step, the numbers of the steps that write what it reads."""
    made: dict[str, list[tuple[int, Region]]] = {}
    for j, step in enumerate(program.steps):
        for out in written(program, step):
            made.setdefault(out.root, []).append((j, out))
    needs: list[set[int]] = []
    for step in program.steps:
        reads = [region(program, key) for key in step.reads]
        needs.append({j for r in reads for j, out in made.get(r.root, ()) if overlap(r, out)})
    return needs
