"""Numbers on the command line: bytes, milliseconds, errors, losses."""

import re

from codegen.errors import CodegenError

DROP = ("By how many percentage points fewer samples of --data may be right than with the float "
        "model, e.g. 0.5%.")  # fmt: skip
AGREEMENT = ("Least part of the samples of --data whose largest output is that of the float model, "
             "e.g. 98%.")  # fmt: skip
COSINE = "Least mean cosine of the outputs to the float model's over --data, e.g. 0.99."
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20}


def parse_bytes(option: str, text: str) -> int:
    """512k, 2M or 1000000; 0 for nothing. CodegenError otherwise."""
    if not text:
        return 0
    match = re.fullmatch(r"([1-9]\d*)([kKmM]?)", text)
    if not match:
        raise CodegenError(
            option, f"{text!r}", "a positive number of bytes, with k or M", "write e.g. 512k"
        )
    return int(match[1]) * _UNITS[match[2].lower()]


def parse_error(option: str, limit: float) -> float:
    """A limit of max_rel_error, 0 for none. CodegenError for less."""
    if not limit >= 0:
        raise CodegenError(option, f"{limit:g}", "a positive number", "write e.g. 1e-5")
    return limit


def parse_ms(option: str, ms: float) -> float:
    """A time limit in milliseconds, 0 for none. CodegenError for less."""
    if not ms >= 0:
        raise CodegenError(option, f"{ms:g}", "a positive time in ms", "correct it")
    return ms


def parse_drop(option: str, text: str) -> float | None:
    """0.5% as 0.005; None for nothing. CodegenError otherwise."""
    return _percent(option, text, "percentage points from 0% to 100%", "0.5%") if text else None


def parse_agreement(option: str, text: str) -> float:
    """98% as 0.98; 0 for nothing. CodegenError otherwise."""
    return _percent(option, text, "a part of the samples, 0% to 100%", "98%") if text else 0.0


def _percent(option: str, text: str, allowed: str, example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if not match or float(match[1]) > 100:
        raise CodegenError(option, f"{text!r}", allowed, f"write e.g. {example}")
    return float(match[1]) / 100


def parse_cosine(option: str, limit: float) -> float:
    """A least cosine, 0 for none. CodegenError for what is none."""
    if not 0 <= limit <= 1:
        raise CodegenError(option, f"{limit:g}", "a cosine from 0 to 1", "write e.g. 0.99")
    return limit
