"""Layout of generated C: neutral terms dropped, long lines folded, comments refilled.

Templates write `oy * ${sh} - ${pt}` whatever the numbers are; what people read has no `* 1 - 0`.
Meaning is never touched: only whole literal operands 0 and 1 of + - * / go, and white space.
"""

import re
import textwrap

WIDTH = 110
_INDENT = "    "

# (k + 0) -> k, but not f(k + 0), which is a call
_GROUPED_ZERO = re.compile(r"(?<![\w)\]])\((-?\w+) [+-] 0\)")
_ADDED_ZERO = re.compile(r" [+-] 0(?=[;,)\]]| [-+<>=?:&|])")
_TIMES_ONE = re.compile(r" [*/] 1(?=[;,)\]]| [-+*/%<>=?:&|])")
_ATTRIBUTES = re.compile(r"(\s*static (?:inline )?__attribute__\(\(\w+\)\)) (.*)$")
_TRAILING_COMMENT = re.compile(r"(\S.*?)\s*(/\*.*\*/)$")


def comment(text: str) -> str:
    """A name from outside, fit for the inside of a C comment: no comment marks, no control
    characters (some turn the direction of writing, and compilers warn of them)."""
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return plain.replace("*/", "* /").replace("/*", "/ *")


def tidy(text: str) -> str:
    """Drop `+ 0`, `- 0`, `* 1` and `/ 1`, and empty lines: those that a template's condition left
    inside a function, and all but one between functions."""
    text = _GROUPED_ZERO.sub(r"\1", text)
    text = _TIMES_ONE.sub("", _ADDED_ZERO.sub("", text))
    text = re.sub(r"\n[ \t]*(?=\n[ \t]+\S)", "", text)
    return re.sub(r"\n(?:[ \t]*\n){2,}", "\n\n", text)


def fold(text: str, width: int = WIDTH) -> str:
    """Lines of at most `width` columns, where a comment, a parameter list or the arguments of a
    call can be broken."""
    out: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        if line.lstrip().startswith("/*"):
            block = [line]
            while "*/" not in block[-1]:
                block.append(next(lines))
            out += _refill(block, width)
        else:
            out += _fold_code(line, width)
    return "\n".join(out)


def _refill(block: list[str], width: int) -> list[str]:
    """A comment of one paragraph with a line that is too long is filled anew."""
    prose = block[-1].rstrip().endswith("*/") and "*" not in (x.strip() for x in block)
    if max(map(len, block)) <= width or not prose:
        return block
    indent = block[0][: len(block[0]) - len(block[0].lstrip())]
    words = " ".join(x.strip().removeprefix("/*").removeprefix("* ") for x in block)
    return textwrap.wrap(
        f"/* {words.strip()}", width, initial_indent=indent, subsequent_indent=f"{indent} * ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _fold_code(line: str, width: int) -> list[str]:
    if len(line) <= width or line.lstrip().startswith("#"):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    match = _TRAILING_COMMENT.match(line.lstrip())
    if match:
        return [*_refill([indent + match[2]], width), *_fold_code(indent + match[1], width)]
    commas = _commas(line)
    if not commas:
        return [line]
    start = commas[0]
    parts = [line[a:b].strip() for a, b in zip(commas, [*commas[1:], len(line)], strict=True)]
    out, row = _head(line[:start], indent, width), indent + _INDENT + parts[0]
    for part in parts[1:]:
        if len(row) + 1 + len(part) > width:
            out.append(row)
            row = indent + _INDENT + part
        else:
            row += f" {part}"
    return [*out, row]


def _head(text: str, indent: str, width: int) -> list[str]:
    """What comes before a list: where it is too long, attributes get a line of their own."""
    match = _ATTRIBUTES.match(text)
    if len(text) <= width or not match:
        return [text]
    return [match[1], indent + match[2]]


def _commas(line: str) -> list[int]:
    """Where the elements of the outermost list in parentheses start; empty where there is none."""
    stack: list[list[int]] = []
    best: tuple[int, list[int]] | None = None
    quote = ""
    for i, c in enumerate(line):
        if quote:
            quote = "" if c == quote and line[i - 1] != "\\" else quote
        elif c in "\"'":
            quote = c
        elif c in "([{":
            stack.append([i + 1])
        elif c in ")]}" and stack:
            found = stack.pop()
            if c == ")" and len(found) > 1 and (best is None or len(stack) < best[0]):
                best = len(stack), found
        elif c == "," and stack:
            stack[-1].append(i + 1)
    return best[1] if best else []
