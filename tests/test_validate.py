"""codegen boards validate: what was published, errors and ranks, the fit, the cache of counts, the
page, and the command around them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.cli import main
from codegen.errors import CodegenError
from codegen.run import Outcome
from codegen.run.virtual import missing
from codegen.run.virtual.counts import EVENTS
from codegen.run.virtual.model import Work
from codegen.validate import PARAMS_VARIABLE, cases, measure, page, published
from codegen.validate.fit import cycles, fit, parameters, toml_lines
from codegen.validate.summary import Comparison, errors, targets
from codegen.verbs import boards as verb

ROOT = Path(__file__).resolve().parent.parent
A57 = load_board("jetson-nano-cpu")
FITTED = ("raspberry-pi-3b-plus", "jetson-nano-cpu", "raspberry-pi-4")
NETWORKS = {n.name: n for n in published.networks()}


# ---- what was published ----


def test_fit_and_check_go_by_turns_in_order_of_size():
    target = [n for n in NETWORKS.values() if n.use in ("fit", "check")]
    eight = sorted(target, key=lambda n: n.mmacs)
    assert [n.use for n in eight] == ["fit", "check"] * 4


@pytest.mark.parametrize("board", FITTED)
def test_boards_of_the_target_have_all_eight_networks(board):
    eight = {n.name for n in NETWORKS.values() if n.use in ("fit", "check")}
    assert eight <= set(published.reference(board).ms)


@pytest.mark.parametrize("run", published.figures() + published.figures("other"),
                         ids=lambda f: f"{f.board}-{f.role}")  # fmt: skip
def test_published_figures_are_of_known_networks_and_boards(run):
    assert set(run.ms) <= set(NETWORKS)
    assert load_board(run.board).cycle_model is not None
    assert run.source
    assert run.date
    assert published.reference(run.board) is not None


# ---- errors and ranks ----


def row(use: str, predicted: float, real: float, board: str = "b") -> Comparison:
    return Comparison(board, "squeezenet", use, predicted, real, {})


def test_errors():
    found = errors([row("check", 90, 100), row("check", 220, 200), row("check", 240, 300)])
    assert found.count == 3
    assert found.mean == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert found.percentile_90 == pytest.approx(0.18)  # between the second and the third
    assert found.bias == pytest.approx((0.9 * 1.1 * 0.8) ** (1 / 3))
    assert found.tau == 1
    assert errors([]) is None
    assert errors([row("check", 1, 1)]).tau is None


def test_targets_are_of_check_networks_and_of_ranks_on_each_board():
    rows = [row("check", 105, 100), row("fit", 300, 200), row("extra", 1, 50),
            row("check", 119, 100, "c"), row("fit", 100, 110, "c"),
            row("transfer", 1, 9, "d"), row("transfer", 2, 8, "d")]  # fmt: skip
    assert [(t.found, t.met) for t in targets(rows)] == [
        ("12.0%", False), ("17.6%", True), ("1.00", True), ("-1.00", False),
    ]  # fmt: skip


# ---- the fit ----


def work(core: float = 50e6, **events: int) -> Work:
    return Work(core, 60_000_000, dict.fromkeys(EVENTS, 0) | events)


WORKS = [
    work(80e6, first_load_l2=3_000_000, spacing4=400_000, load_memory=20_000),
    work(40e6, first_load_l2=1_000_000, spacing8=900_000),
    work(150e6, first_load_l2=5_000_000, spacing0=2_000_000, mispredicted=100_000),
    work(20e6, first_load_l2=2_000_000, spacing4=50_000),
]
FREE = [p for p in parameters() if p.board == A57.name]


def model_with(first_load: float, line: float):
    l2 = replace(A57.cycle_model.l2, first_load=first_load)
    return replace(A57.cycle_model, l2=l2, memory=replace(A57.cycle_model.memory, line=line))


def test_fit_finds_the_penalties_and_nothing_else():
    real = model_with(5, 12)
    found = fit(model_with(2, 9), [(w, cycles(w, real)) for w in WORKS], FREE)
    assert found == fit(model_with(9, 4), [(w, cycles(w, real)) for w in WORKS], FREE) == real
    assert "first_load = 5" in toml_lines(found)
    assert "line = 12" in toml_lines(found)


@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_fit_stays_within_the_bounds(scale):
    model = model_with(2, 9)
    found = fit(model, [(w, scale * cycles(w, model)) for w in WORKS], FREE)
    assert all(p.low <= p.get(found) <= p.high for p in FREE)
    assert any(p.get(found) in (p.low, p.high) for p in FREE)


@pytest.mark.parametrize("parameter", parameters(), ids=lambda p: f"{p.board}-{p.key}")
def test_boards_keep_to_the_bounds(parameter):
    value = parameter.get(load_board(parameter.board).cycle_model)
    assert parameter.low <= value <= parameter.high
    assert parameter.low <= parameter.guess <= parameter.high
    assert parameter.reason


# ---- definitions of networks ----


@pytest.mark.parametrize(
    ("folder", "variable", "said"),
    [
        (None, None, "--params: not given; .*benchmark.*; give --params DIR or set"),
        (Path("/nowhere"), None, "--params: /nowhere is no folder"),
        (None, "/nowhere", "--params: /nowhere is no folder"),
    ],
)
def test_no_definitions(monkeypatch, folder, variable, said):
    monkeypatch.delenv(PARAMS_VARIABLE, raising=False)
    if variable:
        monkeypatch.setenv(PARAMS_VARIABLE, variable)
    with pytest.raises(CodegenError, match=said):
        measure.find_params(folder)


def test_missing_and_wrong_definition(tmp_path):
    with pytest.raises(CodegenError, match=r"resnet18.param: No such file.*--network"):
        measure.read_param(tmp_path, NETWORKS["resnet18"])
    (tmp_path / "resnet18.param").write_text("7767517\n")
    with pytest.raises(CodegenError, match=r"sha256 \w{64}; the published figures are of e01ce18e"):
        measure.read_param(tmp_path, NETWORKS["resnet18"])


# ---- counts ----

COUNTS = "block 1 1000 d503201f\nregion 0 1 " + "0 " * len(EVENTS) + "\nedge 0 0 1 7\nend ok\n"


@pytest.fixture
def emulator(tmp_path, monkeypatch):
    """A machine on which ncnn "runs"; the list of what was run."""
    monkeypatch.setenv("CODEGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "python3.11").touch()
    monkeypatch.setattr(measure, "sysroot", lambda board, wheels: tmp_path)
    monkeypatch.setattr(measure, "missing", lambda board: "")
    monkeypatch.setattr(measure, "plugin_path", lambda qemu: Path("plugin.so"))
    monkeypatch.setattr(measure, "works", lambda counts, *_: {0: Work(
        1.0, counts.instructions(counts.regions[0]), counts.regions[0].events)})  # fmt: skip
    runs = []

    def count(job, board):
        runs.append((board.name, job.args[-1]))
        broken = job.inputs[job.args[-1]] == b"broken"
        return (Outcome(error="it broke"), "") if broken else (Outcome(), COUNTS)

    monkeypatch.setattr(measure, "count", count)
    return runs


def test_counts_are_kept_by_what_they_depend_on(emulator):
    net = NETWORKS["mobilenet"]
    first = measure.measure(net, b"one", A57)
    assert first.work.instructions == 7
    assert measure.measure(net, b"one", A57) == first
    penalties = replace(A57, cycle_model=model_with(3, 10))
    assert measure.measure(net, b"one", penalties) == first
    assert len(emulator) == 1
    measure.measure(net, b"two", A57)
    fewer = replace(A57.cycle_model.caches, streams=4)
    measure.measure(net, b"one", replace(A57, cycle_model=replace(A57.cycle_model, caches=fewer)))
    assert len(emulator) == 3


def test_failing_run_is_a_value_and_nothing_is_kept(emulator, tmp_path):
    assert measure.measure(NETWORKS["mobilenet"], b"broken", A57).error == "it broke"
    assert not list((tmp_path / "cache").rglob("*.gz"))


# ---- the command ----


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["boards", *map(str, args)])
    return ended.value.code


@pytest.fixture
def silicon(monkeypatch, tmp_path):
    """Boards whose real latency is what a model with other penalties predicts; ResNet18 fails."""
    real = model_with(5, 12)

    def figure(network) -> float:
        return published.reference(A57.name).ms[network.name] * A57.clock_hz / 1e3

    def measured(network, param, board):
        if network.name == "resnet18":
            return measure.Measured(error="the program ended with signal 11: ")
        guess = WORKS[list(NETWORKS).index(network.name) % len(WORKS)]
        share = figure(network) / cycles(guess, real)
        events = {k: round(v * share) for k, v in guess.events.items()}
        return measure.Measured(Work(guess.core * share, round(60e6 * share), events))

    monkeypatch.setattr(cases, "measure", measured)
    monkeypatch.setattr(cases, "read_param", lambda folder, network: b"")
    monkeypatch.setattr(verb, "missing", lambda board: "")
    return tmp_path


def test_command(silicon, capsys):
    out = silicon / "page.md"
    nets = ("vgg16", "squeezenet", "mobilenet_v2", "shufflenet_v2")
    chosen = [x for n in nets for x in ("--network", n)]
    ended = codegen("validate", "--params", silicon, "--board", A57.name, *chosen, "--json",
                    "--fit", "--out", out)  # fmt: skip
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert ended == 0
    assert [r["network"] for r in report["rows"]] == sorted(nets, key=list(NETWORKS).index)
    assert all(r["ratio"] == pytest.approx(1, abs=0.02) for r in report["rows"])
    line = report["fitted"][A57.name]["memory"]["line"]
    assert line == pytest.approx(12, abs=1)  # two networks, and a pull to the guess
    assert report["failed"] == []
    assert f"{A57.name} vgg16: " in said.err  # progress
    text = out.read_text()
    assert "| SqueezeNet 1.1 | check |" in text
    assert f"| `memory.line` | {line} | 4 to 14 |" in text
    assert "2023-04-20" in text


def test_command_prints_lines_for_the_boards_file(silicon, capsys):
    codegen("validate", "--params", silicon, "--board", A57.name, "--network", "mobilenet", "--fit")
    said = capsys.readouterr().out
    assert f"# boards/{A57.name}.toml\nl2 = {{ load = " in said
    assert "missed" not in said


def test_failed_network_is_told_and_ends_with_1(silicon, capsys):
    chosen = ("--network", "resnet18", "--network", "mobilenet")
    assert codegen("validate", "--params", silicon, "--board", A57.name, *chosen, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [r["network"] for r in report["rows"]] == ["mobilenet"]
    assert report["failed"][0]["error"].startswith("the program ended with signal 11")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--board", "imx8m-mini"), "nothing was published for imx8m-mini; boards with figures:"),
        (("--board", "jetson"), "jetson"),
        (("--network", "lenet"), "--network: 'lenet'; networks: shufflenet_v2,"),
        (("--network", "mobilenet", "--out", "/nowhere/x.md"), "--out /nowhere/x.md: No such"),
    ],
)
def test_wrong_options(silicon, capsys, args, said):
    assert codegen("validate", "--params", silicon, *args) == 2
    assert said in capsys.readouterr().err


def test_machine_without_emulator(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(verb, "missing", lambda board: "qemu-aarch64 is not installed")
    assert codegen("validate", "--params", tmp_path) == 2
    assert "qemu-aarch64 is not installed" in capsys.readouterr().err


def test_list_of_boards_stays(capsys):
    assert codegen("--json") == 0
    names = [b["name"] for b in json.loads(capsys.readouterr().out)]
    assert set(FITTED) <= set(names)


# ---- the page ----


def test_int8_has_figures_of_its_own():
    rows = [Comparison(A57.name, n, use, ms, real, dict.fromkeys(("core", "branch", "l2", "memory"),
                       0.25)) for n, use, ms, real in (
        ("squeezenet", "check", 77.36, 77.36), ("squeezenet_int8", "int8", 38.68, 77.69),
        ("resnet18_int8", "int8", 190.74, 190.74))]  # fmt: skip
    text = page.int8_section(rows, [A57])
    cells = "SqueezeNet 1.1, int8 | 38.7 | 77.7 | 0.50 | 0.50 | 1.00"
    assert f"| {A57.name} | {cells} |" in text
    assert "ResNet18, int8 | 190.7 | 190.7 | 1.00 | not run | 0.94" in text
    assert f"| {A57.name} | 2 | 25.1% |" in text
    assert page.int8_section(rows[:1], [A57]) == ""
    whole = page.document(rows, [A57], page.Versions("1", "2", "3"))
    assert text in whole
    assert "int8" not in whole.split("## Targets")[1].split("## int8")[0]


@pytest.mark.parametrize("board", FITTED)
def test_nothing_is_fitted_to_int8(board):
    figures = published.reference(board)
    assert {n for n in figures.ms if n.endswith("_int8")} == {
        n.name for n in NETWORKS.values() if n.use == "int8"
    }
    case = cases.Case(load_board("rock-pi-4-big"), NETWORKS["resnet18_int8"], 1.0, work(1e6))
    assert cases.compare([case])[0].use == "int8"


def test_page_has_the_penalties_of_the_boards():
    """docs/VALIDATION.md was made with the boards' files as they are now."""
    text = (ROOT / "docs" / "VALIDATION.md").read_text()
    assert page.penalties([load_board(b) for b in FITTED]) in text


@pytest.mark.slow
def test_real_run():
    """With ncnn's definitions at hand, a small network comes out near what was published."""
    try:
        folder = measure.find_params(None)
    except CodegenError:
        pytest.skip(f"{PARAMS_VARIABLE} is not set")
    if missing(A57):
        pytest.skip(missing(A57))
    (case,) = cases.measure_all([A57], [NETWORKS["shufflenet_v2"]], folder)
    assert case.error == ""
    (found,) = cases.compare([case])
    assert found.ratio == pytest.approx(1, abs=0.18)
