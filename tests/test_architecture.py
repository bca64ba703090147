"""The walls of the house: imports point one way, and each outside library has one door."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each module may import those above it, and nothing below. What has no line of its own belongs to
# its folder's.
# fmt: off
ORDER = [
    "errors", "types", "graph", "sparsity", "resources", "names", "c_text", "c_literals", "cores",
    "cycle_model", "board", "ops.base", "ops.conv", "ops", "builder", "interpret", "onnx_file",
    "calibration.weights", "calibration.corrections", "calibration.record",
    "calibration.histogram", "calibration.methods",
    "onnx_import", "onnx_equalise", "passes", "models", "groups", "kernels", "layout", "layer",
    "precision",
    "signature", "recorded", "tile_order", "int8_order", "block_order",
    "int8_depthwise_order", "int8_winograd_order",
    "winograd", "winograd_lines", "winograd_blocks", "strassen", "exactness", "half_blocks",
    "band_blocks", "sparse_blocks", "constants", "int8_weights", "weights", "inorder_blocks",
    "int8_blocks", "transpose_blocks", "derive", "packed_size",
    "threads", "plan", "cost", "heuristic", "ranges", "steps", "schedule", "regions", "split",
    "order", "memory", "sources", "emit", "cpus", "toolchain", "stack", "build", "footprint",
    "run", "fleet", "compare", "reference", "verify", "pipeline", "calibration.activations",
    "calibration.preprocess", "calibration.ports", "calibration.files", "calibration.data",
    "calibration.cuts", "calibration.outputs", "calibration", "accuracy", "attribution",
    "memory_map", "report", "store", "pricing", "program", "measured", "svg_text", "roofline",
    "profile_text", "health", "peers", "validate", "verbs", "cli",
]
# fmt: on

# outside library -> the modules that may import it
DOORS = {
    "onnx": {"onnx_file", "onnx_import", "onnx_equalise", "models", "peers"},
    "onnxsim": {"onnx_import", "models"},
    "onnxruntime": {"reference", "peers"},
    "jinja2": {"emit"},
    "elftools": {"footprint"},
    "paramiko": {"run"},
    "distributed": {"fleet"},
}


def _module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT / "codegen").with_suffix("").parts)
    return name.removesuffix(".__init__")


def _place(module: str) -> int:
    """Position in ORDER of the module or of the nearest folder that has one."""
    while module and module not in ORDER:
        module = module.rpartition(".")[0]
    return ORDER.index(module) if module else -1


FILES = [p for p in sorted((ROOT / "codegen").rglob("*.py")) if _module(p) != "__init__"]


def _imports(path: Path) -> set[str]:
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return out


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_imports_point_one_way(path):
    here = _place(_module(path))
    assert here >= 0, f"{_module(path)} has no place in ORDER"
    for name in _imports(path):
        assert not name.startswith(("rl", "tests")) or name.startswith("rl_"), name
        if not name.startswith("codegen."):
            continue
        module = name.removeprefix("codegen.")
        if not (ROOT / "codegen" / f"{module.replace('.', '/')}.py").is_file():
            continue  # a name from a module or package: that import is seen by itself
        assert _place(module) <= here, f"{_module(path)} imports {module}, which comes after it"


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_outside_libraries_have_one_door(path):
    folder = _module(path).split(".")[0]
    for library, doors in DOORS.items():
        if folder not in doors:
            used = {n for n in _imports(path) if n.split(".")[0] == library}
            assert not used, f"{_module(path)} imports {used}; only {sorted(doors)} may"


def test_no_c_in_python():
    """C is written in templates and runtime_c, not glued together in Python."""
    for path in FILES:
        if _module(path) not in ("emit", "c_text", "stack"):
            assert "#include" not in path.read_text(), path
