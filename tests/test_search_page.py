"""docs/SEARCH.md: what it says follows from the rows."""

import json
from xml.etree import ElementTree

import pytest

from benchmarks.search.experiment import AT, gap, learner
from benchmarks.search.page import curves, draw, markdown
from rl.agents import make_agent
from rl.exact import optimum
from rl.walk import Walk
from tests.search_cases import kws_space


@pytest.fixture(scope="module")
def row() -> dict:
    walk = Walk(kws_space(5))
    best = optimum(walk).value
    agents = {n: learner(walk, lambda n=n: make_agent(n), best, 2) for n in ("qlearning", "random")}
    finalist = {"names": ["exact"], "ms": 2.1, "predicted_ms": 2.0, "arena_bytes": 1,
                "flash_bytes": 1}  # fmt: skip
    return {
        "model": "kws", "board": "some-board", "layers": 12, "candidates": 50, "plans": 1e9,
        "optimum_ms": 2.0, "states": 4, "agents": agents, "long_random": 0.05,
        "fixed": {n: gap(walk, make_agent(n), best) for n in ("greedy", "lookahead", "fastest")},
        "arena": {"points": [[2.0, 4096], [3.0, 1024]], "apart": [2.5, 2048],
                  "limited": {"greedy": None, "qlearning": 0.0},
                  "peak": {"layer": "conv", "kernel": "k", "held": 512, "scratch": 512}},
        "cold_s": 200.0, "cold_cpu_s": 300.0, "warm_s": 11.0, "warm_cpu_s": 10.0,
        "rules": {"ncnn": 0.3}, "sweep": [{"discount": 0.9, **agents["qlearning"]}],
        "steps": [
            {"step": "first", "ms": 0.6, "table_ms": 0.4, "reads_input": True, "weights_bytes": 9},
            {"step": "conv", "ms": 1.3, "table_ms": 1.5, "reads_input": False,
             "weights_bytes": 99_999},
            {"step": "pool", "ms": 0.2, "table_ms": 0.1, "reads_input": False, "weights_bytes": 0},
        ],
        "finalists": [finalist], "chosen": ["exact"], "whole": {"ncnn": 3.0}, "rounds": 1,
    }  # fmt: skip


def test_learners_are_judged_by_their_gap(row):
    q, chance = row["agents"]["qlearning"], row["agents"]["random"]
    assert q["gap_most"] <= 0.01 < chance["gap_mean"]
    assert q["within_1_percent"] == q["seeds"] == 2
    assert [e for e, *_ in q["curve"]] == list(AT)
    assert all(low <= mean <= high for _, mean, low, high in q["curve"])
    assert row["fixed"]["fastest"] > 0


def test_the_page_says_what_was_measured(row, tmp_path):
    text = markdown([row])
    assert "within 1 % of the optimum in 2 of 2 searches" in text
    assert "30.00 % less" in text  # 2.1 ms against the 3.0 of the best uniform plan
    assert "5.00 % in the mean" in text  # 2.1 measured, 2.0 predicted
    assert "| discount 0.9 |" in text
    assert "| 2.000 | 4.0 | 3.000 | 1.0 | 50.00 % | 2.500 | 2.0 | conv: 0.5 + 0.5 |" in text
    assert "greedy finds no plan on 1 of 1 tables" in text
    assert "to be had on 1 of 1 tables: kws, some-board" in text
    steps = "2.100 | 2.000 | 0.600 | 0.400 | 1.300 | 1.500 | 0.200 | 0.100"
    assert f"| kws, some-board | {steps} |" in text
    assert "half the arena is to be had on 1 of 1 tables" in text
    assert "1.0 KiB are enough instead of 2.0" in text
    assert "| 200 | 300 | 11 | 10 |" in text
    assert "5.00 % at most (kws, some-board)" in text
    draw(json.loads(json.dumps({"kws": row})), tmp_path)
    assert (tmp_path / "SEARCH.md").read_text() == text
    picture = ElementTree.fromstring((tmp_path / "search-kws-some-board.svg").read_text())
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 6
    assert "qlearning" in curves(row)
