"""ONNX names -> C identifiers, unique and stable."""

import re
from collections.abc import Collection, Sequence

# fmt: off
_KEYWORDS = frozenset((
    # C11 and C++20
    "alignas", "alignof", "and", "and_eq", "asm", "auto", "bitand", "bitor", "bool", "break",
    "case", "catch", "char", "char8_t", "char16_t", "char32_t", "class", "co_await", "co_return",
    "co_yield", "compl", "concept", "const", "const_cast", "consteval", "constexpr", "constinit",
    "continue", "decltype", "default", "delete", "do", "double", "dynamic_cast", "else", "enum",
    "explicit", "export", "extern", "false", "float", "for", "friend", "goto", "if", "inline",
    "int", "long", "main", "mutable", "namespace", "new", "noexcept", "not", "not_eq", "nullptr",
    "operator", "or", "or_eq", "private", "protected", "public", "register", "reinterpret_cast",
    "requires", "restrict", "return", "short", "signed", "sizeof", "static", "static_assert",
    "static_cast", "struct", "switch", "template", "this", "thread_local", "throw", "true", "try",
    "typedef", "typeid", "typename", "union", "unsigned", "using", "virtual", "void", "volatile",
    "wchar_t", "while", "xor", "xor_eq",
    # types and macros that a header before ours, or the compiler itself, may define
    "int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t", "uint64_t",
    "size_t", "linux", "unix", "NULL", "EOF", "errno", "stdin", "stdout", "stderr", "assert", "I",
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
