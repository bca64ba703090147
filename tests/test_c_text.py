"""The layout of generated C: what may be dropped is dropped, nothing that means something is."""

import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.c_text import comment, fold, tidy
from tests.library import check


@pytest.mark.parametrize(
    ("given_text", "wanted"),
    [
        ("int y0 = oy * 2 - 0;", "int y0 = oy * 2;"),
        ("(-y0 + 0) / 1 : 0;", "-y0 : 0;"),
        ("w + (k + 0) * 16 + 4", "w + k * 16 + 4"),
        ("p % 32 * 1 - 1 + j * 1;", "p % 32 - 1 + j;"),
        ("y[o++] = x[i0 * 1 + i1 * 9];", "y[o++] = x[i0 + i1 * 9];"),
        ("}\n\n \n\nint f;", "}\n\nint f;"),
    ],
)
def test_neutral_terms_go(given_text, wanted):
    assert tidy(given_text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "x + 0.5f;", "x * 1.0f;", "x - 01;", "x * 12;", "x + 0 * y;", "f(k + 10)", "f(0)",
        "return 0;", "x = -1;", "i < 1;", "a * 1u;", "x + 0u;", "{1, 0}",
        "const float *x", "y * 1e3f;",
    ],
)  # fmt: skip
def test_everything_else_stays(text):
    assert tidy(text) == text


_TERMS = st.recursive(
    st.sampled_from(["0", "1", "2", "7", "a", "b"]),
    lambda inner: st.builds(
        lambda x, op, y, bracket: f"({x} {op} {y})" if bracket else f"{x} {op} {y}",
        inner, st.sampled_from(["+", "-", "*", "<", "=="]), inner, st.booleans(),
    ),
    max_leaves=8,
)  # fmt: skip


@given(_TERMS, st.integers(-9, 9), st.integers(-9, 9))
def test_value_of_an_expression_stays(text, a, b):
    def value(expression: str) -> int:
        # C's and Python's precedence agree but for chains of comparisons
        return eval(expression, {"a": a, "b": b})

    if len(re.findall(r"<|==", text)) < 2:
        assert value(tidy(f"{text};")[:-1]) == value(text)


def test_long_lists_are_folded_at_the_outermost_commas():
    args = ", ".join(f"first{i}(a, b)" for i in range(9))
    lines = fold(f"    call({args});", 60).split("\n")
    assert lines[0] == "    call("
    assert max(map(len, lines)) <= 60
    assert all(x.startswith("        ") and not x.startswith("         ") for x in lines[1:])
    assert " ".join(x.strip() for x in lines).replace("( ", "(", 1) == f"call({args});"


def test_what_cannot_be_folded_stays():
    for line in (f"#define X {'y' * 99}", f"x = {' + '.join(['abcdef'] * 20)};", "a, b"):
        assert fold(line, 60) == line


def test_a_trailing_comment_moves_up():
    line = f"  f({'a, ' * 20}b); /* why */"
    assert fold(line, 70).split("\n")[0] == "  /* why */"


def test_prose_is_refilled_and_tables_are_not():
    prose = f"/* {'word ' * 30}\n * end. */"
    lines = fold(prose, 60).split("\n")
    assert max(map(len, lines)) <= 60
    assert all(x.startswith(" * ") for x in lines[1:])
    assert " ".join(x.removeprefix(" * ") for x in lines) == f"/* {'word ' * 30}end. */"
    table = f"/* a table\n *\n *   {'x' * 70}\n */"
    assert fold(table, 60) == table


@given(st.text())
def test_a_comment_ends_where_it_should(text):
    made = comment(text)
    assert "*/" not in made
    assert "/*" not in made
    assert made.isprintable()


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_any_name_in_a_comment_compiles(tmp_path):
    names = ["*/ int x; /*", "/*/", "*//*/**/", "a\\\n//", "??/ \u202e \x00"]
    text = "".join(f"/* {comment(n)} */\n" for n in names) + "int main(void) { return 0; }\n"
    (tmp_path / "x.c").write_text(text)
    check(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-trigraphs", "-fsyntax-only",
           "x.c"], cwd=tmp_path)  # fmt: skip
