"""The runner ssh against real OpenSSH servers: what works, and everything that goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codegen.cli import main
from codegen.run import Job
from codegen.run.ssh.judge import read_runs
from tests.ssh_board import A57, go, needs_sshd

ROOT = Path(__file__).resolve().parent.parent
MNIST = ROOT / "examples" / "models" / "mnist8.onnx"
STEADY_CLOCK = {
    "devices__system__cpu__cpu0__cpufreq__scaling_governor": "performance\n",
    "devices__system__cpu__cpu0__cpufreq__scaling_cur_freq": "1430000\n",
    "devices__system__cpu__cpu0__cpufreq__cpuinfo_max_freq": "1430000\n",
    "class__thermal__thermal_zone0__type": "CPU-therm\n",
    "class__thermal__thermal_zone0__temp": "41500\n",
    "class__thermal__cooling_device0__type": "thermal-cpufreq-0\n",
    "class__thermal__cooling_device0__cur_state": "0\n",
}


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


# ---- what works ----


@needs_sshd
@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_files_there_and_back(ssh_board, ssh_program, sftp):
    if not sftp:
        ssh_board.quirks("case $SSH_ORIGINAL_COMMAND in *sftp*) exit 1;; esac")
    data = bytes(range(256)) * 4099
    outcome = go(Job(ssh_program, ("copy", "in.bin", "out.bin"), {"in.bin": data}, ("out.bin",)))
    assert outcome.error == ""
    assert outcome.outputs == {"out.bin": data}
    assert outcome.report == {"args": 4}


@needs_sshd
@pytest.mark.parametrize("sftp", [True, False], ids=["sftp", "cat"])
def test_names_are_never_commands(ssh_board, ssh_program, sftp):
    if not sftp:
        ssh_board.quirks("case $SSH_ORIGINAL_COMMAND in *sftp*) exit 1;; esac")
    name, out = "-a b;touch $(id)'\"`>|&*?\n~", "--$HOME \\ü"
    job = Job(ssh_program, ("copy", name, out), {name: b"x"}, (out,))
    assert go(job).outputs == {out: b"x"}
    said = go(Job(ssh_program, ("env", "A"), env={"A": "$(id)`id` ;|&"}))
    assert said.report == {"value": "$(id)`id` ;|&"}


@needs_sshd
def test_greeting_of_a_login_shell(ssh_board, ssh_program):
    ssh_board.quirks("echo Welcome, held by nobody; echo")
    outcome = go(Job(ssh_program, ("copy", "a", "b"), {"a": b"xyz"}, ("b",)))
    assert (outcome.error, outcome.outputs) == ("", {"b": b"xyz"})


@needs_sshd
def test_private_while_it_runs(ssh_board, ssh_program):
    """Folder 0700, files 0600, program 0700: seen by a program that lists where it runs."""
    script = ssh_program.with_name("list")
    script.write_text('#!/bin/sh\necho "{\\"modes\\": \\"$(stat -c %a .. . in ../program)\\"}"'
                      " | tr '\\n' ' '\n")  # fmt: skip
    assert go(Job(script, (), {"in": b""})).report == {"modes": "700 700 600 700"}


@needs_sshd
def test_conditions_come_with_a_measurement(ssh_board, ssh_program):
    ssh_board.system(**STEADY_CLOCK)
    (ssh_board.folder / "cpuinfo").write_text("processor : 0\nCPU part : 0xd07\n")
    outcome = go(Job(ssh_program, ("steady",)))
    assert outcome.error == ""
    assert len(outcome.report["runs_ns"]) == 20
    state = {"governor": "performance", "cur_freq_hz": 1430000000, "temperature_c": 41.5,
             "throttled": []}  # fmt: skip
    assert outcome.report["conditions"] == {"before": state, "after": state}


@needs_sshd
def test_core_is_told_to_the_program(ssh_board, ssh_program):
    (ssh_board.folder / "cpuinfo").write_text(
        "processor : 0\nCPU part : 0xd07\nprocessor : 1\nCPU part : 0xd07\n"
        "processor : 2\nCPU part : 0xd03\n"
    )
    assert go(Job(ssh_program, ("env", "CODEGEN_CPU"))).report == {"value": "1"}
    (ssh_board.folder / "cpuinfo").write_text("processor : 0\nCPU part : 0xd08\n")
    outcome = go(Job(ssh_program, ("steady",)))
    assert "board: the host has cortex-a72, not the board's cortex-a57" in outcome.error
    assert outcome.lost


@needs_sshd
def test_one_noisy_attempt_is_repeated(ssh_board, ssh_program):
    assert go(Job(ssh_program, ("settles",))).report["turn"] == "steady"


@needs_sshd
def test_trials_are_judged_one_by_one(ssh_board, ssh_program):
    report = go(Job(ssh_program, ("trials",))).report
    assert report["runs_ns"] == [[7] * 8, [5, 9] * 4]
    assert report["noisy"][0] == ""
    assert "confidence interval" in report["noisy"][1]
    assert set(report["conditions"]) == {"before", "after"}


@needs_sshd
def test_conditions_span_the_attempts(ssh_board, ssh_program):
    """The board is a degree warmer at each look; the first trial is of the first attempt."""
    ssh_board.system(**STEADY_CLOCK)
    temp = ssh_board.folder / "sys/class/thermal/thermal_zone0/temp"
    ssh_board.quirks("case $SSH_ORIGINAL_COMMAND in *scaling_governor*) "
                     f"echo $(($(cat {temp}) + 1000)) >{temp};; esac")  # fmt: skip
    conditions = go(Job(ssh_program, ("trials",))).report["conditions"]
    assert conditions["before"]["temperature_c"] == 42.5
    assert conditions["after"]["temperature_c"] == 47.5  # of the third


@needs_sshd
def test_verify_over_ssh(ssh_board, tmp_path, capsys):
    out = tmp_path / "mnist8"
    assert codegen("build", MNIST, "--board", A57.name, "--out", out, "--no-verify", "-q") == 0
    assert codegen("verify", MNIST, out, "--host", "board", "--seeds", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["passed"]


# ---- figures that are not to be believed ----


@needs_sshd
@pytest.mark.parametrize(
    ("what", "files", "said"),
    [
        ("noisy", {}, r"rejected after 3 attempts: the 95 % confidence interval of the median is "),
        ("steady", {"class__thermal__cooling_device0__cur_state": "2\n"},
         r"rejected after 3 attempts: the board throttles \(thermal-cpufreq-0 at 2\)"),
        ("steady", {"devices__platform__soc__soc:firmware__get_throttled": "50005\n"},
         r"the board throttles \(under-voltage, throttled\)"),
        ("words", {}, "the program's runs_ns is not a list of numbers"),
    ],
)  # fmt: skip
def test_rejected(ssh_board, ssh_program, what, files, said):
    ssh_board.system(**{**STEADY_CLOCK, **files})
    outcome = go(Job(ssh_program, (what,)))
    assert re.search(said, outcome.error), outcome.error
    assert outcome.lost == outcome.error.startswith("rejected")
    assert not outcome.report


@pytest.mark.parametrize(
    "runs", [["fast"], [True], [float("nan")], [-1], "fast", [[1], 2], [[1], []], {"a": 1}]
)
def test_runs_that_are_none(runs):
    with pytest.raises(ValueError, match="the program's runs_ns "):
        read_runs({"runs_ns": runs})


@pytest.mark.parametrize("report", [{}, {"runs_ns": []}, {"runs_ns": [[], []]}])
def test_nothing_was_timed(report):
    assert read_runs(report).trials == ()


# ---- programs that fail ----


@needs_sshd
@pytest.mark.parametrize(
    ("args", "timeout", "said"),
    [
        (("hang",), 0.5, "board: the program did not end within 0.5 s"),
        (("flood",), 30, "board: the program printed more than 4 MiB"),
        (("garbage",), 30, "the program printed no JSON line"),
        (("trap",), 30, "the program ended with signal "),
        (("unknown",), 30, "the program ended with exit code 3"),
    ],
    ids=lambda v: v[0] if isinstance(v, tuple) else "",
)
def test_program_that_fails(ssh_board, ssh_program, args, timeout, said):
    outcome = go(Job(ssh_program, args, timeout_s=timeout))
    assert outcome.error.startswith(said)
    assert not outcome.lost


@needs_sshd
def test_missing_output(ssh_board, ssh_program):
    outcome = go(Job(ssh_program, ("env", "A"), outputs=("out.bin",)))
    assert outcome.error == "the program did not write out.bin"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": {"../x": b""}}, "'../x' is not a plain file name"),
        ({"outputs": ("a/b",)}, "'a/b' is not a plain file name"),
        ({"inputs": {"..": b""}}, "'..' is not a plain file name"),
        ({"env": {"A;id": "1"}}, "'A;id' is not the name of an environment variable"),
        ({"args": ("a\0b",)}, "an argument holds a NUL"),
        ({"root": Path("/")}, "a program that brings its own root folder"),
        ({"program": Path("/no/such")}, "there is no program /no/such"),
    ],
)
def test_job_that_cannot_be_sent(change, said):
    outcome = go(Job(**{"program": Path(__file__), **change}))
    assert outcome.error.startswith(said)


# ---- Ctrl-C ----


@needs_sshd
def test_interrupted(ssh_board, ssh_program):
    """As if a user pressed Ctrl-C while a program hangs: the board is as before."""
    code = (
        "from pathlib import Path; from codegen.run import Job\n"
        "from tests.ssh_board import A57, runner\n"
        f"runner().run(Job(Path({str(ssh_program)!r}), ('hang',)), A57)"
    )
    user = subprocess.Popen((sys.executable, "-c", code), cwd=ROOT, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    while not list((ssh_board.folder / "tmp").glob("*/pid")):
        assert user.poll() is None, user.stderr.read()
        time.sleep(0.01)
    user.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in user.communicate(timeout=20)[1]
    assert ssh_board.left_behind() == []
