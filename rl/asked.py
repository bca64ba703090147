"""Requests that cannot be met are refused before the work."""

from math import ceil

from codegen.errors import CodegenError
from codegen.pipeline import calibration_of, model_hash
from codegen.run import Runner
from codegen.types import DType
from rl.request import Request


def check(request: Request, checker: Runner | None, quantised: bool = False) -> None:
    """CodegenError where types, limits and what can be measured do not go together. `quantised`:
    the network came so, and its layers may be in either type."""
    if request.dtype and (request.dtype == DType.I8.value or request.calibration):
        raise CodegenError(
            "--dtype",
            f"{request.dtype!r}" + (" beside --calibration" if request.calibration else ""),
            "f32 or f16 for all layers, or --calibration to choose between f32 and int8 for each",
            "leave --dtype away" if request.calibration
            else "use --calibration for int8; a network that came quantised needs neither",
        )
    if checker is None and (request.exactness or request.data):
        raise CodegenError(
            "--max-error" if request.limits.error else "--data" if request.data else "--pareto",
            f"nothing here can compare results of board {request.board.name} with onnxruntime",
            f"an emulator, or a board itself: {', '.join(request.board.runners)}",
            "see `codegen doctor`",
        )
    if request.calibration and request.exactness:
        raise CodegenError(
            "--max-error" if request.limits.error else "--pareto error",
            "beside --calibration: int8 is not judged by its largest error",
            "--max-accuracy-drop, --min-cosine, --min-agreement",
            "use one of these, with --data",
        )
    if "accuracy" in request.pareto and request.calibration is None:
        raise CodegenError(
            "--pareto accuracy", "without --calibration",
            "a calibration that says what layers lose in int8 (--sensitivity)",
            "leave accuracy away, or calibrate",
        )  # fmt: skip
    _check_judged(request, quantised)


def _check_judged(request: Request, quantised: bool) -> None:
    limits = request.limits
    option = ("--min-cosine" if limits.cosine else
              "--min-agreement" if limits.agreement else "--max-accuracy-drop")  # fmt: skip
    if not request.limits.judged:
        return
    ranged = quantised or request.calibration is not None
    if request.data is None or not ranged:
        missing = "--data" if request.data is None else "--calibration"
        raise CodegenError(
            option, f"without {missing}",
            "--calibration, for which layers may be in int8, and --data, on which plans are judged",
            f"give {missing}",
        )  # fmt: skip
    if request.limits.drop is not None and request.data.labels is None:
        raise CodegenError(
            "--max-accuracy-drop", "data without labels", "an array `y` or `labels` in the .npz",
            "give labels, or use --min-agreement",
        )  # fmt: skip
    count = min(request.samples or len(request.data), len(request.data))
    least = round(1.0 - limits.agreement, 9)
    if 0 < count * least < 1:
        raise CodegenError(
            "--min-agreement",
            f"{limits.agreement:.4g} of {count} samples leaves none on which plans may differ",
            f"{ceil(1 / least)} samples or more for such a limit",
            "give more with --data and --samples, or ask for less",
        )
    if request.calibration is None:
        return
    sha = model_hash(request.model, request.shapes)
    if not calibration_of(request.calibration, sha).sensitivity:
        raise CodegenError(
            option, f"{request.calibration} has no sensitivity of layers",
            "what the outputs lose by each layer in int8",
            "calibrate again with --sensitivity 16",
        )  # fmt: skip
