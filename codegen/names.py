"""ONNX names -> C identifiers, unique and stable."""

import re
from collections.abc import Collection, Sequence

# fmt: off
_KEYWORDS = frozenset((
    "alignas", "alignof", "and", "asm", "auto", "bool", "break", "case", "catch", "char",
    "class", "const", "continue", "default", "delete", "do", "double", "else", "enum",
    "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if",
    "inline", "int", "long", "main", "namespace", "new", "not", "operator", "or", "private",
    "protected", "public", "register", "restrict", "return", "short", "signed", "sizeof",
    "static", "struct", "switch", "template", "this", "throw", "true", "try", "typedef",
    "typename", "union", "unsigned", "using", "virtual", "void", "volatile", "while", "xor",
))
# fmt: on


def identifier(name: str) -> str:
    """A valid C (and C++) identifier that looks like `name`."""
    out = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_") or "x"
    return f"n{out}" if out[0].isdigit() else f"{out}_" if out in _KEYWORDS else out


def c_names(
    names: Sequence[str], prefix: str = "", reserved: Collection[str] = ()
) -> dict[str, str]:
    """Distinct identifiers for distinct names, in order; case is not enough to tell two apart
    (macros are upper case)."""
    taken = {r.upper() for r in reserved}
    out: dict[str, str] = {}
    for name in names:
        if name in out:
            continue
        base = candidate = prefix + identifier(name)
        i = 1
        while candidate.upper() in taken:
            i += 1
            candidate = f"{base}_{i}"
        taken.add(candidate.upper())
        out[name] = candidate
    return out
