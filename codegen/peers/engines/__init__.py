"""The engines that can be compared, by name."""

from collections.abc import Mapping

from codegen.errors import CodegenError
from codegen.peers.base import Engine
from codegen.peers.engines import blas, emx, litert, mnn, ncnn, onnx2c, ort, ours

ENGINES: Mapping[str, Engine] = {
    e.name: e
    for e in (ours.ENGINE, ours.COMPACT)
    + tuple(m.ENGINE for m in (ncnn, mnn, litert, ort, blas, emx, onnx2c))
}


def pick_engines(names: str) -> tuple[Engine, ...]:
    """Engines of a list such as "ncnn,mnn", each once; CodegenError for an unknown name."""
    wanted = tuple(dict.fromkeys(n.strip() for n in names.split(",") if n.strip()))
    for name in wanted:
        if name not in ENGINES:
            raise CodegenError(
                "engines", f"{name!r} is not known", f"engines: {', '.join(ENGINES)}",
                "name some of them, with commas between",
            )  # fmt: skip
    return tuple(ENGINES[n] for n in wanted)
