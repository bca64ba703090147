"""Plans and kernel rows: files that are right come back as they were, wrong ones say what is
wrong."""

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from onnx import helper

from codegen.board import ISAS, board_names, load_board
from codegen.derive import DERIVED
from codegen.errors import CodegenError
from codegen.heuristic import default_plan
from codegen.kernels import Layer, load_kernels, refusal
from codegen.layout import LAYOUTS
from codegen.onnx_import import translate
from codegen.pipeline import finish, load_graph
from codegen.plan import Choice, Plan, check_plan, needs_kernel, read_plan
from codegen.ranges import SPLITS
from codegen.resources import examples_dir
from codegen.types import DType
from codegen.weights import PACKERS

SHA = "ab" * 32
BOARD = load_board("jetson-nano-cpu")
MODELS = sorted((examples_dir() / "models").glob("*.onnx"))


loaded = lru_cache(load_graph)


@pytest.fixture(scope="module")
def resnet():
    return load_graph(examples_dir() / "models" / "mlperf_ic_resnet8.onnx")


@pytest.fixture(scope="module")
def plan(resnet):
    return finish(resnet, default_plan(resnet, BOARD, SHA), BOARD, "resnet").plan


# ---- the file -----------------------------------------------------------------------------------


def test_round_trip(plan, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    back = read_plan(path)
    assert back == plan
    assert back.to_json() == plan.to_json()
    assert back.sha256 == plan.sha256


def test_round_trip_of_threads(resnet, plan, tmp_path):
    path = tmp_path / "plan.json"
    made = finish(resnet, replace(plan, threads=3), BOARD, "resnet").plan
    path.write_text(made.to_json())
    back = read_plan(path)
    assert back == made
    assert back.threads == 3
    assert back.sha256 != plan.sha256


def test_nothing_in_it(tmp_path):
    empty = Plan("b", SHA, {})
    (tmp_path / "plan.json").write_text(empty.to_json())
    assert read_plan(tmp_path / "plan.json") == empty


def test_names_of_any_kind(tmp_path):
    odd = Plan("b", SHA, {'a "quoted"\nname/é': Choice("k", "nhwc")}, ('a "quoted"\nname/é',))
    (tmp_path / "plan.json").write_text(odd.to_json())
    assert read_plan(tmp_path / "plan.json") == odd


def test_one_line_per_node(plan):
    lines = plan.to_json().splitlines()
    for name, choice in plan.nodes.items():
        (line,) = [x for x in lines if x.startswith(f"    {json.dumps(name)}: ")]
        assert json.dumps(choice.kernel) in line
        assert json.dumps(choice.layout) in line


def test_identity_is_that_of_the_decisions(plan):
    name, choice = next(iter(plan.nodes.items()))
    backwards = dict(reversed(plan.nodes.items()))
    assert replace(plan, predicted={"cycles": 3}, nodes=backwards).sha256 == plan.sha256
    for other in (
        replace(plan, board="other"),
        replace(plan, model_sha256="0"),
        replace(plan, order=plan.order[::-1]),
        replace(plan, nodes={**plan.nodes, name: replace(choice, kernel="other")}),
    ):
        assert other.sha256 != plan.sha256


# ---- a plan is for one network, on one board ----------------------------------------------------


@pytest.mark.parametrize("board", board_names())
@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
def test_default_plan_is_valid(model, board):
    graph, board = loaded(model), load_board(board)
    made = default_plan(graph, board, SHA)
    check_plan(made, graph, board, SHA)
    one_by_one = {n for name, c in made.nodes.items() for n in c.group or (name,)}
    assert one_by_one == {n.name for n in graph.nodes if needs_kernel(n)}


def test_no_kernel_for_a_type(resnet):
    """The board has no float16 arithmetic."""
    tensors = {k: replace(t, dtype=DType.F16) for k, t in resnet.tensors.items()}
    with pytest.raises(CodegenError, match="no kernel for Conv on f16; .*; use --dtype f32"):
        default_plan(replace(resnet, tensors=tensors), BOARD, SHA)


def test_a_plan_names_the_transposition_that_was_taken():
    """Which rows can move a tensor depends on how it lies; a plan may name another one."""
    nodes = [helper.make_node("Relu", ["x"], ["r"], name="r"),
             helper.make_node("Transpose", ["r"], ["y"], name="t", perm=[0, 2, 3, 1])]  # fmt: skip
    ports = [helper.make_tensor_value_info(n, 1, s)
             for n, s in (("x", (1, 16, 6, 6)), ("y", (1, 6, 6, 16)))]  # fmt: skip
    model = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:]))
    graph = translate(model, Path("g.onnx"), "g")
    relu = Choice(default_plan(graph, BOARD, SHA).nodes["r"].kernel, "nchw")
    plan = Plan(BOARD.name, SHA, {"r": relu, "t": Choice("transpose_c_rows", "nchw")})
    taken = finish(graph, plan, BOARD, "g").plan.nodes["t"].kernel
    assert taken == "transpose_f32_neon_wide"
    again = Plan(BOARD.name, SHA, {"r": relu, "t": Choice(taken, "nchw")})
    assert finish(graph, again, BOARD, "g").plan.nodes["t"].kernel == taken


def edited(plan, **change):
    raw = json.loads(plan.to_json())
    for key, value in change.items():
        raw[key] = value
    return {k: v for k, v in raw.items() if v is not None}


CHANGES = {
    "schema": (dict(schema=2), "schema 2; schema 1 is read; make the plan again"),
    "no schema": (dict(schema=None), "schema None; schema 1"),
    "unknown key": (dict(tile=8), "unknown key 'tile'; known keys: board, conversions, dtype"),
    "no board": (dict(board=None), "board is None; a str is needed"),
    "no model": (dict(model_sha256=None), "model_sha256 is None; a str is needed"),
    "nodes": (dict(nodes=[]), r"nodes is \[\]; a dict is needed"),
    "order": (dict(order="abc"), "order is 'abc'; a list of str is needed"),
    "order of numbers": (dict(order=[1]), r"order is \[1\]; a list of str is needed"),
    "conversions": (dict(conversions=5), "conversions is 5; a list of dict is needed"),
    "conversion": (dict(conversions=[5]), r"conversions is \[5\]; a list of dict is needed"),
    "predicted": (dict(predicted=[]), r"predicted is \[\]; a dict is needed"),
    "no threads": (dict(threads=0), "threads 0; 1 or more; fix the number"),
    "threads as text": (dict(threads="4"), "threads '4'; 1 or more"),
    "threads as truth": (dict(threads=True), "threads True; 1 or more"),
    "entry": (dict(nodes={"a": 3}), "entry of node 'a' is 3; it needs"),
    "entry key": (dict(nodes={"a": {"kernel": "k", "width": 8}}), "entry of node 'a' is"),
    "no kernel": (dict(nodes={"a": {"layout": "nchw"}}), "entry of node 'a' is"),
    "layout": (
        dict(nodes={"a": {"kernel": "k", "layout": "chwn"}}),
        "layout 'chwn' of node 'a'; layouts: nchw, nhwc",
    ),
    "list layout": (dict(nodes={"a": {"kernel": "k", "layout": []}}), r"layout \[\] of node"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_wrong_file(plan, case, tmp_path):
    change, said = CHANGES[case]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(edited(plan, **change)))
    with pytest.raises(CodegenError, match=said) as caught:
        read_plan(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("optional", ["threads", "order", "conversions", "predicted"])
def test_keys_that_may_be_missing(plan, optional, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(edited(plan, **{optional: None})))
    assert read_plan(tmp_path / "plan.json").nodes == plan.nodes


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "schema 'list'"),
        (b"null", "schema 'NoneType'"),
    ],
    ids=range(6),
)
def test_not_a_plan(data, said, tmp_path):
    (tmp_path / "plan.json").write_bytes(data)
    with pytest.raises(CodegenError, match=said):
        read_plan(tmp_path / "plan.json")


def test_missing_file(tmp_path):
    with pytest.raises(CodegenError, match=r"none\.json: no such file"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(CodegenError, match="a plan written by codegen"):
        read_plan(tmp_path)


@pytest.fixture
def refuse(resnet, plan):
    def run(said: str, changed: Plan = plan, board=BOARD, sha: str = SHA) -> None:
        with pytest.raises(CodegenError, match=said) as caught:
            check_plan(changed, resnet, board, sha, "my.json")
        assert caught.value.where == "my.json"

    return run


def test_right_plan(resnet, plan):
    check_plan(plan, resnet, BOARD, SHA)
    check_plan(replace(plan, order=()), resnet, BOARD, SHA)


def test_other_model(refuse):
    refuse("made for model abababababab…; this model is cdcdcdcdcdcd…", sha="cd" * 32)


def test_other_board(refuse):
    refuse(
        "made for board 'jetson-nano-cpu'; this build is for 'raspberry-pi-4'",
        board=load_board("raspberry-pi-4"),
    )


def test_more_threads_than_cores(refuse, resnet, plan):
    check_plan(replace(plan, threads=4), resnet, BOARD, SHA)
    said = "5 threads; board jetson-nano-cpu has 4 cores: 1 to 4; name a number in this range"
    refuse(said, replace(plan, threads=5))


def test_unknown_node(refuse, plan):
    name = next(iter(plan.nodes))
    near = {**plan.nodes, f"{name}x": plan.nodes[name]}
    refuse(f"'{name}x' is not in the network; did you mean '{name}'", replace(plan, nodes=near))
    far = {**plan.nodes, "@@@@": plan.nodes[name]}
    refuse(r"'@@@@' is not in the network; \d+ nodes have kernels", replace(plan, nodes=far))


def test_missing_node(refuse, plan):
    name = list(plan.nodes)[2]
    fewer = {n: c for n, c in plan.nodes.items() if n != name}
    refuse(rf"node '{name}' \(Conv\) has no kernel", replace(plan, nodes=fewer))


def changed(plan, kernel: str, layout: str) -> Plan:
    """The first convolution with another kernel: 3x3, 3 channels in, 16 out."""
    name = next(iter(plan.nodes))
    return replace(plan, nodes={**plan.nodes, name: Choice(kernel, layout)})


@pytest.mark.parametrize(
    ("kernel", "layout", "said"),
    [
        ("conv2d_f32_magic", "nchw", r"\(conv2d\); templates/conv2d/kernels.toml has: conv2d_nchw"),
        ("copy_c", "nchw", r"kernel 'copy_c' for node .* \(conv2d\); templates/conv2d"),
        ("conv2d_nhwc_f32_c", "nchw", "layout 'nchw' for node .*; kernel .* computes nhwc"),
        ("conv2d_nhwc_f32_neon_gemm_8x8", "nhwc", "it needs pointwise = 1; here it is 0"),
        ("conv2d_nhwc_f32_neon_depthwise", "nhwc", "it needs depthwise = 1; here it is 0"),
    ],
)
def test_kernel_that_does_not_fit(refuse, plan, kernel, layout, said):
    refuse(said, changed(plan, kernel, layout))


def test_kernel_for_another_core(refuse, plan):
    plain = replace(BOARD, isa=())
    refuse("it needs isa 'neon'; the board has none; a row whose constraints hold", board=plain)


@pytest.mark.parametrize("how", ["twice", "missing", "unknown"])
def test_wrong_order(refuse, plan, how):
    first, *rest = plan.order
    order = {"twice": (first, *plan.order), "missing": rest, "unknown": (*plan.order, "odd")}[how]
    named = {"twice": "a node twice", "missing": first, "unknown": "odd"}[how]
    refuse(f"order does not list every node once .'{named}'", replace(plan, order=tuple(order)))


# ---- kernel rows --------------------------------------------------------------------------------


def test_rows_that_ship():
    """Names follow the grammar, and what they name exists."""
    for row in load_kernels().values():
        assert row.name.startswith(row.family + "_")
        assert row.layout == "any" or row.layout in LAYOUTS
        assert row.pack in ("", *PACKERS)
        assert row.derive in ("", *DERIVED)
        assert row.split in ("", *SPLITS)
        assert {*row.dtype} <= {"any", *(d.value for d in DType)}
        assert row.isa in ("c", *ISAS)


def test_row_1_is_portable():
    seen = set()
    for row in load_kernels().values():
        if row.family not in seen:
            assert row.isa == "c"
            seen.add(row.family)


@pytest.fixture
def rows(tmp_path):
    """Write kernels.toml of a family `relu` with one template and read it."""
    folder = tmp_path / "relu"
    folder.mkdir()
    (folder / "ref.c.j2").write_text("")

    def run(text: str):
        (folder / "kernels.toml").write_text(text)
        load_kernels.cache_clear()
        return load_kernels(tmp_path)

    yield run
    load_kernels.cache_clear()


ROW = '[[kernel]]\nname = "relu_c"\ntemplate = "ref.c.j2"\n'


def test_defaults_of_a_row(rows):
    row = rows(ROW)["relu_c"]
    assert (row.family, row.layout, row.dtype, row.isa) == ("relu", "any", ("f32",), "c")
    assert row.template == "relu/ref.c.j2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[kernel", "cannot be read .*a list of"),
        ("", "cannot be read"),
        ("kernel = 5", "cannot be read"),
        ("kernel = [5]", "cannot be read"),
        (ROW + "tile = 8\n", "unknown key 'tile' in row 'relu_c'; known keys: at_least"),
        (ROW.replace("name", "#"), r"row '\?' has no name or template"),
        (ROW.replace("template", "#"), "row 'relu_c' has no name or template"),
        (ROW.replace("ref.c", "none.c"), "names template 'none.c.j2', which does not exist"),
        (ROW + ROW, "kernel 'relu_c' is defined twice; names are unique"),
        (ROW + 'layout = "chwn"', "layout = 'chwn' in row 'relu_c'; layout is any, nchw or nhwc"),
        (ROW + 'inplace = "yes"', "inplace = 'yes' in row 'relu_c'; inplace is input or residual"),
        (ROW + "dtype = [1]", "dtype is a string or a list of strings"),
        (ROW + "isa = 1", "isa is a string"),
        (ROW + "when = 1", "when is a table"),
        (ROW + 'pitch = "no"', "pitch is true or false"),
        (ROW + "rate = 0", "rate is a positive number"),
        (ROW + "rate = true", "rate is a positive number"),
        (ROW + "rate = { cortex-a53 = 2 }", "with a default"),
        (ROW + "rate = { default = 3, cortex-a53 = 0 }", "rate is a positive number"),
        (ROW.replace('"ref.c.j2"', "5"), "template is a string"),
    ],
    ids=range(20),
)
def test_wrong_row(rows, text, said):
    with pytest.raises(CodegenError, match=said) as caught:
        rows(text)
    assert caught.value.where.endswith("relu/kernels.toml")


def test_why_a_row_is_refused(rows):
    row = rows(
        ROW + 'isa = "neon"\ndtype = ["f32", "f64"]\nwhen = {k = [1, 3], s = 1}\n'
        "multiple_of = {c = 4}"
    )["relu_c"]
    dims = {"k": 3, "s": 1, "c": 8}
    fits = Layer("relu", dims, "f64")
    assert refusal(row, fits, ("neon",)) == ""
    refused = {
        "it computes relu, not copy": replace(fits, family="copy"),
        "it computes f32/f64, not i8": replace(fits, dtype="i8"),
        "it needs k = 1/3; here it is 2": replace(fits, dims={**dims, "k": 2}),
        "it needs s = 1; here it is None": replace(fits, dims={"k": 3, "c": 8}),
        "it needs c to be a multiple of 4; here it is 6": replace(fits, dims={**dims, "c": 6}),
        "it needs c to be a multiple of 4; here it is None": replace(fits, dims={"k": 3, "s": 1}),
    }
    for reason, layer in refused.items():
        assert refusal(row, layer, ("neon",)) == reason
    assert refusal(row, fits, ("sve",)) == "it needs isa 'neon'; the board has sve"
