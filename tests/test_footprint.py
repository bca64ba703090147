"""Sizes of ELF files: as GNU `size` counts them, and a clear word about files that are none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from codegen import footprint
from codegen.errors import CodegenError
from codegen.footprint import Sections, foreign_symbols, sections, symbols, undefined

PREFIXES = ("", "aarch64-linux-gnu-")
A_C = """
#include <math.h>
#include <string.h>
const float table[33] = {1.5f};
static int counter = 7;
int zeroed[100];
static float helper(float x) { return x * table[counter % 33]; }
void a_run(float *y, const float *x, int n) {
    memcpy(y, x, (size_t)n);
    for (int i = 0; i < n; i++) y[i] = expf(helper(y[i]));
    counter++;
}
"""
B_C = """
void a_run(float *y, const float *x, int n);
void b_fetch(float *y);
extern void maybe(void) __attribute__((weak));
__thread int per_thread[5];
const char *b_with_a_name_beyond_fifteen_characters(float *y) {
    b_fetch(y); a_run(y, y, 3); if (maybe) maybe(); per_thread[1]++; return "a literal";
}
"""
MAIN_C = (
    "void a_run(float *, const float *, int); int main(void) { float v = 0; a_run(&v, &v, 1); }"
)


@pytest.fixture(params=PREFIXES, ids=["host", "aarch64"])
def built(request, tmp_path) -> dict[str, Path]:
    """a.o, b.o, liball.a and (where it links) the program, of one machine."""
    return _build(request.param, tmp_path)


def _build(prefix: str, folder: Path) -> dict[str, Path]:
    for tool in ("gcc", "ar", "size"):
        if not shutil.which(prefix + tool):
            pytest.skip(f"no {prefix}{tool} on this machine")
    (folder / "a.c").write_text(A_C)
    (folder / "b_with_a_long_name_of_file.c").write_text(B_C)
    (folder / "main.c").write_text(MAIN_C)
    for source in folder.glob("*.c"):
        _run(folder, prefix + "gcc", "-O2", "-fdata-sections", "-c", source.name)
    objects = ["a.o", "b_with_a_long_name_of_file.o"]
    _run(folder, prefix + "ar", "rcsD", "liball.a", *objects)
    _run(folder, prefix + "gcc", "main.o", "a.o", "-lm", "-o", "program")
    names = dict(a="a.o", b=objects[1], archive="liball.a", program="program")
    return {"size": Path(prefix + "size"), **{k: folder / v for k, v in names.items()}}


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("what", ["a", "b", "archive", "program"])
def test_agrees_with_gnu_size(built, what):
    lines = _run(built["a"].parent, str(built["size"]), str(built[what])).splitlines()[1:]
    text, data, bss = (sum(int(line.split()[i]) for line in lines) for i in range(3))
    ours = sections([built[what]])
    assert (ours.text + ours.rodata, ours.data, ours.bss) == (text, data, bss)


def test_kinds_of_sections(built):
    table = _run(built["a"].parent, str(built["size"]), "-A", str(built["a"]))
    by_name = {row.split()[0]: int(row.split()[1]) for row in table.splitlines() if row[:1] == "."}
    ours = sections([built["a"]])
    assert ours.text == sum(n for name, n in by_name.items() if name.startswith(".text"))
    assert ours.data == 4
    assert ours.bss == 400
    assert ours.rom == ours.text + ours.rodata + ours.data


def test_archive_is_the_sum_of_its_objects(built):
    objects = [built["a"], built["b"]]
    assert sections([built["archive"]]) == sections(objects)
    assert symbols([built["archive"]]) == symbols(objects)
    assert sections(objects) - sections(objects[:1]) == sections(objects[1:])


def test_symbols(built):
    found = {s.name: s for s in symbols([built["archive"]])}
    assert (found["table"].section, found["table"].bytes) == ("rodata", 132)
    assert (found["counter"].section, found["counter"].bytes) == ("data", 4)
    assert (found["zeroed"].section, found["zeroed"].bytes) == ("bss", 400)
    assert found["a_run"].section == "text"
    assert found["a_run"].object == "a.o"
    long_name = found["b_with_a_name_beyond_fifteen_characters"]
    assert long_name.object == "b_with_a_long_name_of_file.o"


def test_what_the_linker_must_bring(built):
    assert undefined([built["b"]]) - {"_GLOBAL_OFFSET_TABLE_"} >= {"b_fetch", "a_run"}
    wanted = undefined([built["archive"]])
    assert {"expf", "memcpy", "b_fetch"} <= wanted
    assert not wanted & {"a_run", "maybe"}
    assert foreign_symbols([built["a"]]) == set()
    assert foreign_symbols([built["archive"]]) == {"b_fetch"}


def test_one_place_counts_once(tmp_path):
    if not shutil.which("gcc"):
        pytest.skip("no gcc on this machine")
    source = 'int f(int x) { return x; } int g(int) __attribute__((alias("f")));'
    (tmp_path / "alias.c").write_text(source)
    _run(tmp_path, "gcc", "-c", "alias.c")
    assert [s.name for s in symbols([tmp_path / "alias.o"])] == ["f"]


def test_machines_do_not_mix(tmp_path):
    both = []
    for name, prefix in zip("ab", PREFIXES, strict=True):
        (tmp_path / name).mkdir()
        both.append(_build(prefix, tmp_path / name)["a"])
    if both[0].read_bytes()[18:20] == both[1].read_bytes()[18:20]:
        pytest.skip("this machine is an aarch64 one: both compilers make the same")
    with pytest.raises(CodegenError, match="made for machine aarch64; .* is for x86-64"):
        sections(both)


def test_other_machines(built):
    data = bytearray(built["a"].read_bytes())
    data[18:20] = (8).to_bytes(2, "little")  # EM_MIPS
    built["a"].write_bytes(data)
    with pytest.raises(CodegenError, match="made for machine EM_MIPS; machines: aarch64"):
        sections([built["a"]])


@pytest.mark.parametrize("keep", [3, 20, 63, 64, 300, -1])
def test_truncated_object(built, keep):
    data = built["a"].read_bytes()
    built["a"].write_bytes(data[:keep])
    with pytest.raises(CodegenError, match="damaged ELF|not an ELF"):
        sections([built["a"]])


def test_elf_without_sections(built):
    data = bytearray(built["a"].read_bytes())
    data[40:48], data[60:62] = bytes(8), bytes(2)  # e_shoff, e_shnum
    built["a"].write_bytes(data)
    with pytest.raises(CodegenError, match="it has no sections"):
        sections([built["a"]])


@pytest.mark.parametrize("keep", [30, 100, -40])
def test_truncated_archive(built, keep):
    built["archive"].write_bytes(built["archive"].read_bytes()[:keep])
    with pytest.raises(CodegenError, match="archive damaged at byte"):
        sections([built["archive"]])


def test_bsd_archive(built, tmp_path):
    content = built["a"].read_bytes()
    name = b"a name with spaces.o".ljust(24, b"\0")
    header = b"#1/24".ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"644".ljust(8)
    header += str(len(name) + len(content)).encode().ljust(10) + b"`\n"
    path = tmp_path / "bsd.a"
    path.write_bytes(b"!<arch>\n" + header + name + content)
    assert sections([path]) == sections([built["a"]])
    assert symbols([path])[0].object == "a name with spaces.o"


def test_an_empty_archive_has_nothing(tmp_path):
    (tmp_path / "empty.a").write_bytes(b"!<arch>\n")
    assert sections([tmp_path / "empty.a"]) == Sections()


def test_not_an_elf_file(tmp_path):
    (tmp_path / "text.o").write_text("hello")
    with pytest.raises(CodegenError, match=r"not an ELF file \(it starts with b'hell'\)"):
        sections([tmp_path / "text.o"])


def test_no_such_file(tmp_path):
    with pytest.raises(CodegenError, match="No such file"):
        sections([tmp_path / "none.o"])


def test_allowed_externals_are_what_kernels_call():
    assert {"expf", "tanhf", "erff", "log1pf", "fmaf", "memset"} <= footprint.ALLOWED_EXTERNALS
    assert not footprint.ALLOWED_EXTERNALS & {"malloc", "free", "printf", "abort", "exit"}
