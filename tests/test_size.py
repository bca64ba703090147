"""`codegen size` and the attribution of bytes, on a library made by hand."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from codegen.attribution import (
    ARENA,
    OTHER,
    RUN,
    UNNAMED,
    VIEWS,
    by_kernel,
    by_layer,
    by_symbol,
    changes,
    read_footprint,
)
from codegen.errors import CodegenError
from codegen.footprint import Sections
from codegen.verbs.size import size

pytestmark = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("ar")), reason="no gcc and ar on this machine"
)

# Two layers share a function and a weight of 101 bytes; its name begins that of the third's.
NET_C = """
const signed char net_w_both[101] = {1};
const float net_w_fc[64] = {1};
static char arena[256];
const char *net_note(void) { return "a literal"; }
__attribute__((noinline)) void net_conv_c_1_tile_8(float *y) { y[0] *= 3; y[1] += 2; }
void net_conv_c_1(float *y) { net_conv_c_1_tile_8(y); net_conv_c_1_tile_8(y + 2); y[0] = 1; }
void net_conv_c_1_x_1(float *y) { y[0] += net_w_fc[3]; }
void net_run_in(char *a) { net_conv_c_1((float *)a); net_conv_c_1_x_1((float *)a); }
void net_run(void) { net_run_in(arena); }
"""
BUFFERS = [
    {"name": "x", "offset": 0, "bytes": 100, "first": 0, "last": 1},
    {"name": "y", "offset": 128, "bytes": 64, "first": 1, "last": 2},
]


def _layer(name: str, kernel: str, function: str, weights: list[str]) -> dict:
    return {"name": name, "op": "Conv", "kernel": kernel, "function": function, "macs": 5000,
            "weights": weights, "arena": [], "scratch": None}  # fmt: skip


def _report(**changed) -> dict:
    layers = [
        _layer("conv/a", "conv_c", "net_conv_c_1", ["net_w_both"]),
        _layer("conv/b", "conv_c", "net_conv_c_1", ["net_w_both"]),
        _layer("fc", "conv_c_1_x", "net_conv_c_1_x_1", ["net_w_fc"]),
    ]
    return {"name": "net", "board": "local", "layers": layers, "buffers": BUFFERS,
            "arena_bytes": 256, "arena_lower_bound_bytes": 192, "stack_bytes": 48,
            "io_bytes": 40, **changed}  # fmt: skip


def _folder(folder: Path, source: str = NET_C, **changed) -> Path:
    (folder / "build").mkdir(parents=True)
    (folder / "net.c").write_text(source)
    flags = ["-O1", "-ffunction-sections", "-fdata-sections", "-fno-inline", "-c"]
    subprocess.run(["gcc", *flags, "net.c", "-o", "build/net.o"], cwd=folder, check=True)
    subprocess.run(["ar", "rcsD", "build/libnet.a", "build/net.o"], cwd=folder, check=True)
    (folder / "report.json").write_text(json.dumps(_report(**changed)))
    return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    return _folder(tmp_path_factory.mktemp("size") / "net")


def _size(*args: object) -> Result:
    done = CliRunner().invoke(size, [str(a) for a in args])
    if done.exception and not isinstance(done.exception, CodegenError):
        raise done.exception
    return done


def _refusal(*args: object) -> str:
    done = _size(*args)
    assert isinstance(done.exception, CodegenError), done.output
    return str(done.exception)


def test_every_view_adds_up_to_the_sections(build):
    found = read_footprint([build])
    for view in VIEWS.values():
        assert sum((r.sections for r in view(found)), Sections()) == found.sections


def test_layers_own_their_functions_helpers_and_weights(build):
    found = read_footprint([build])
    symbols = {s.name: s.bytes for s in found.symbols}
    rows = {r.name: r for r in by_layer(found)}
    shared = symbols["net_conv_c_1"] + symbols["net_conv_c_1_tile_8"]
    assert rows["conv/a"].sections.text + rows["conv/b"].sections.text == shared
    assert rows["conv/a"].sections.rodata == 51
    assert rows["conv/b"].sections.rodata == 50
    assert rows["conv/a"].note == "function shared by 2 layers"
    assert rows["fc"].sections == Sections(symbols["net_conv_c_1_x_1"], 256)
    assert rows[RUN].sections.text == symbols["net_run"] + symbols["net_run_in"]
    assert rows[OTHER].sections.text == symbols["net_note"]
    assert rows[ARENA].sections == Sections(bss=256)
    assert rows[UNNAMED].sections.rodata >= len("a literal")


def test_arena_in_use_and_ram(build):
    found = read_footprint([build])
    assert [layer.live_bytes for layer in found.layers] == [128, 192, 64]
    assert found.bss == 0
    assert found.ram == found.sections.data + 256 + 48 + 40


def test_kernels_are_sums_of_layers(build):
    found = read_footprint([build])
    rows = {r.name: r for r in by_kernel(found)}
    assert rows["conv_c"].count == 2
    assert rows["conv_c"].macs == 10000
    assert rows["conv_c"].sections.rodata == 101
    assert by_symbol(found)[0].name in ("arena", "net_w_fc")


@pytest.mark.parametrize("by", ["layer", "kernel", "symbol"])
def test_tables_in_a_pipe(build, by):
    done = _size(build, "--by", by)
    assert done.exit_code == 0
    assert "net for local" in done.output
    assert "\x1b" not in done.output
    assert all(len(line.rstrip()) <= 80 for line in done.output.splitlines())
    assert {"layer": "conv/b", "kernel": "conv_c_1_x", "symbol": "net_w_both"}[by] in done.output


def test_bars_without_unicode(build, monkeypatch):
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    assert "#" * 16 in _size(build).output


def test_json(build):
    data = json.loads(_size(build, "--json").output)
    assert data["totals"]["arena_bytes"] == 256
    assert data["totals"]["rom_bytes"] == sum(r["rom_bytes"] for r in data["layers"])
    assert [r["layer"] for r in data["layers"][:3]] == ["conv/a", "conv/b", "fc"]
    assert data["layers"][1]["arena_live_bytes"] == 192
    assert {r["kernel"] for r in data["kernels"]} >= {"conv_c", "conv_c_1_x"}
    assert any(r["symbol"] == "net_w_fc" for r in data["symbols"])


def test_csv(build):
    rows = list(csv.DictReader(io.StringIO(_size(build, "--csv").output)))
    assert rows[0]["layer"] == "conv/a"
    assert rows[0]["rodata_bytes"] == "51"
    kernels = list(csv.DictReader(io.StringIO(_size(build, "--csv", "--by", "kernel").output)))
    assert kernels[0]["layers"] == "2"


def test_plain_files(build):
    library = build / "build" / "libnet.a"
    done = _size(library)
    assert "libnet.a" in done.output
    assert "net_w_both" in done.output
    assert "arena" in done.output
    data = json.loads(_size(library, build / "build" / "net.o", "--json").output)
    assert data["name"] == "2 files"
    assert data["totals"]["bss_bytes"] == 512  # plain files: nobody says what an arena is
    assert "layers" not in data


def test_unknown_stack(tmp_path):
    done = _size(_folder(tmp_path / "net", stack_bytes=None))
    assert "RAM is without it" in done.output
    assert " ? " in done.output


def test_diff(build, tmp_path):
    layers = _report()["layers"][1:]
    layers[0] = {**layers[0], "kernel": "conv_neon"}
    layers.append(_layer("new", "conv_c", "net_conv_c_1", ["net_w_both"]))
    source = NET_C.replace("net_w_fc[64]", "net_w_fc[32]")
    other = _folder(tmp_path / "net", source, layers=layers, arena_bytes=192)
    done = _size("--diff", build, other)
    assert "-128" in done.output
    assert "conv_c -> conv_neon" in done.output
    data = json.loads(_size("--diff", build, other, "--json").output)
    assert data["totals"]["arena_bytes"] == {"old": 256, "new": 192}
    status = {r["name"]: r["status"] for r in data["rows"]}
    assert (status["new"], status["conv/a"], status["fc"]) == ("added", "removed", "")
    rows = csv.DictReader(io.StringIO(_size("--diff", build, other, "--csv").output))
    fc = next(r for r in rows if r["name"] == "fc")
    assert (fc["rodata_old"], fc["rodata_new"]) == ("256", "128")


def test_diff_with_itself(build):
    assert "7 of 7 layers unchanged" in _size("--diff", build, build).output
    rows = by_layer(read_footprint([build]))
    assert not any(c.status or c.difference != Sections() for c in changes(rows, rows))


def test_map(build, tmp_path):
    target = tmp_path / "arena.svg"
    assert _size(build, "--map", target, "--json").exit_code == 0
    assert "step 1 (conv/b)" in target.read_text()


def test_refusals(build, tmp_path):
    library = build / "build" / "libnet.a"
    assert "--json and --csv together" in _refusal(build, "--json", "--csv")
    assert "1 paths; two: OLD and NEW" in _refusal("--diff", build)
    assert "is not a build folder" in _refusal(library, "--by", "layer")
    assert "not a build folder" in _refusal("--diff", library, build, "--by", "kernel")
    assert "one build folder" in _refusal(library, "--map", tmp_path / "a.svg")
    assert "does not end in .svg" in _refusal(build, "--map", tmp_path / "a.png")
    assert "cannot write" in _refusal(build, "--map", tmp_path / "none" / "a.svg")
    assert "a folder among 2 paths" in _refusal(build, library)
    assert "No such file" in _refusal(tmp_path)


def test_report_that_is_none(build, tmp_path):
    for text in ("[]", "{", '{"name": "net"}', json.dumps(_report(buffers=[{"a": 1}]))):
        folder = tmp_path / str(len(text))
        shutil.copytree(build, folder)
        (folder / "report.json").write_text(text)
        assert "not the report of a build" in _refusal(folder)


def test_archive_is_gone(tmp_path):
    folder = _folder(tmp_path / "net")
    (folder / "build" / "libnet.a").unlink()
    assert "libnet.a: no such file" in _refusal(folder)
