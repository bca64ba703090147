"""Many boards behind one queue, some of which die."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from codegen.board import load_board
from codegen.cli import main
from codegen.errors import CodegenError
from codegen.fleet import Fleet, fleet
from codegen.run import Job
from codegen.run.ssh import Limits
from codegen.store import Store
from codegen.verbs.hosts import measuring_runner
from tests.ssh_board import A57, QUICK, UNSTEADY, Home, SshBoard, needs_sshd

distributed = pytest.importorskip("distributed")
NAMES = ("one", "two", "three")
KWS = Path(__file__).resolve().parent.parent / "examples" / "models" / "mlperf_kws_dscnn.onnx"
WHERE = '#!/bin/sh\necho "{\\"board\\": \\"${TMPDIR%/tmp}\\"}"\n'


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    made = {name: SshBoard(tmp_path_factory.mktemp(name)) for name in NAMES}
    yield made
    for board in made.values():
        board.die()


@pytest.fixture
def known(boards, tmp_path, monkeypatch):
    """All boards alive and in the user's ssh config."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for board in boards.values():
        board.quirks("")
        if board.listener.fileno() < 0:
            board.start()
    Home(tmp_path).write(
        "".join(b.ssh_config(n) for n, b in boards.items()),
        "".join(b.known_host() for b in boards.values()),
    )
    yield boards
    for board in boards.values():
        assert board.settles(), board.left_behind()


@pytest.fixture
def job(tmp_path) -> Job:
    path = tmp_path / "where"
    path.write_text(WHERE)
    return Job(path)


def homes(outcomes) -> list[str]:
    return [Path(o.report["board"]).name[:-1] for o in outcomes]


@needs_sshd
def test_all_boards_work(known, job):
    with Fleet(NAMES, A57, limits=QUICK) as made:
        outcomes = made.run_many([job] * 9)
        assert made.run(job, A57).error == ""
        assert made.lost == {}
    assert [o.error for o in outcomes] == [""] * 9
    assert set(homes(outcomes)) == set(NAMES)


@needs_sshd
def test_a_board_that_is_off(known, job):
    """Its jobs go to others; after two of them it is left alone."""
    known["two"].die()
    with Fleet(NAMES, A57, limits=QUICK) as made:
        outcomes = made.run_many([job] * 9)
    assert [o.error for o in outcomes] == [""] * 9
    assert set(homes(outcomes)) == {"one", "three"}
    assert set(made.lost) == {"two"}
    assert "is sshd running there?" in made.lost["two"]


@needs_sshd
def test_a_board_that_dies_in_the_middle(known, tmp_path):
    """While the first program runs on board `one`, its server is killed."""
    path = tmp_path / "deadly"
    path.write_text(f"#!/bin/sh\ncase $TMPDIR in {known['one'].folder}/*) "
                    f": >{tmp_path}/runs; sleep 100;; esac\n" + WHERE)  # fmt: skip

    def kill_when_it_runs():
        while not (tmp_path / "runs").exists():
            time.sleep(0.01)
        known["one"].die()

    killer = threading.Thread(target=kill_when_it_runs)
    killer.start()
    with Fleet(NAMES, A57, limits=QUICK) as made:
        outcomes = made.run_many([Job(path)] * 6)
    killer.join()
    assert [o.error for o in outcomes] == [""] * 6
    assert set(homes(outcomes)) == {"two", "three"}


def codegen(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in args])
    return ended.value.code


def dies_when_it_works(board: SshBoard) -> threading.Thread:
    """Its first program of ours never ends, and its server is killed then."""
    runs, emulator = board.folder / "runs", board.folder / "slow"
    emulator.write_text(f"#!/bin/sh\n: >{runs}\nsleep 100\n")
    emulator.chmod(0o755)
    board.quirks(f"export BOARD_QEMU={emulator}")

    def kill():
        while not runs.exists():
            time.sleep(0.01)
        board.die()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    return killer


def waits_for(board: SshBoard, other: SshBoard) -> None:
    """Programs of ours begin on a board when the other one works, which so gets one, too."""
    emulator = board.folder / "patient"
    runs = other.folder / "runs"
    emulator.write_text(f'#!/bin/sh\nwhile [ ! -e {runs} ]; do sleep 0.1; done\nexec $REAL "$@"\n')
    emulator.chmod(0o755)
    board.quirks(f"export REAL=$BOARD_QEMU BOARD_QEMU={emulator}")


@needs_sshd
def test_pricing_survives_a_board_that_dies(known, tmp_path, capsys, monkeypatch):
    """All candidates come back with figures, and all of them are in the store."""
    monkeypatch.setattr(fleet, "Limits", lambda: UNSTEADY)
    killer, store = dies_when_it_works(known["one"]), tmp_path / "store.sqlite"
    waits_for(known["two"], known["one"])
    hosts = ("--host", "one", "--host", "two")  # there is a program for each
    args = ("price", KWS, "--board", A57.name, "--layer", "dense", "--store", store, "--json")
    assert codegen(*args, *hosts) == 0
    killer.join(60)
    assert not killer.is_alive()  # it did work, and was killed
    found = json.loads(capsys.readouterr().out)
    (layer,) = found["layers"]
    assert found["runner"] == "ssh"
    assert len(layer["candidates"]) > 3
    assert [c["error"] for c in layer["candidates"]] == [""] * len(layer["candidates"])
    assert all(c["ns"] > 0 and set(c["conditions"]) == {"before", "after"}
               for c in layer["candidates"])  # fmt: skip
    kept = list(Store(store).rows())
    assert {k.kernel for k, _ in kept} == {c["kernel"] for c in layer["candidates"]}
    assert {k.context.runner for k, _ in kept} == {"ssh"}  # as one of them alone would have it


def test_boards_that_are_given_up_are_told(capsys):
    with measuring_runner(A57, "", ("a", "b"), False) as made:
        assert (made.name, made.boards) == ("ssh", 2)
        made.lost["a"] = "it is off"
        assert made.boards == 1
    assert capsys.readouterr().err == "warning: a was given up: it is off\n"


@pytest.mark.slow
@needs_sshd
def test_bench_on_a_fleet(known, capsys, monkeypatch):
    """The first board is off."""
    monkeypatch.setattr(fleet, "Limits", lambda: UNSTEADY)
    known["one"].die()
    args = ("bench", KWS.with_name("mnist8.onnx"), "--board", A57.name, "--json")
    assert codegen(*args, "--host", "one", "--host", "two") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runner"], found["noisy"] is None) == ("ssh", False)
    assert found["ms"] > 0


@needs_sshd
def test_all_boards_die(known, job):
    for board in known.values():
        board.die()
    with Fleet(NAMES, A57, limits=QUICK, retries=1) as made:
        outcomes = made.run_many([job] * 5)
    assert all(o.lost for o in outcomes)
    assert "no board jetson-nano-cpu is left: " in outcomes[-1].error


@needs_sshd
def test_programs_fail_once(known, tmp_path):
    """What a program does wrong is no reason to try it elsewhere."""
    path = tmp_path / "fails"
    path.write_text(f"#!/bin/sh\necho >>{tmp_path}/turns\nexit 3\n")
    with Fleet(NAMES[:2], A57, limits=QUICK) as made:
        (outcome,) = made.run_many([Job(path)])
    assert "exit code 3" in outcome.error
    assert (tmp_path / "turns").read_text() == "\n"


@needs_sshd
def test_workers_on_other_machines(known, job, tmp_path):
    """Boards as workers of a scheduler; one worker's process dies with the job in its hands."""
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        workers = [_worker(cluster.scheduler_address, name, tmp_path) for name in NAMES[:2]]
        with distributed.Client(cluster) as client:
            client.wait_for_workers(2)
            hang = tmp_path / "hang"
            hang.write_text(f'#!/bin/sh\ncase $TMPDIR in {known["one"].folder}/*) '
                            f": >{tmp_path}/runs; kill -9 {workers[0].pid}; sleep 100;; esac\n"
                            + WHERE)  # fmt: skip
            made = Fleet((), A57, limits=QUICK, client=client)
            outcomes = made.run_many([Job(hang)] * 4)
        for worker in workers:
            worker.kill()
            worker.wait()
    assert (tmp_path / "runs").exists()
    assert homes(outcomes) == ["two"] * 4


def _worker(address: str, name: str, folder: Path) -> subprocess.Popen:
    command = (sys.executable, "-m", "distributed.cli.dask_worker", address, "--name", name,
               "--nthreads", "1", "--no-nanny", "--no-dashboard",
               "--resources", f"{A57.name}=1")  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            env={**os.environ, "TMPDIR": str(folder)})  # fmt: skip


def test_another_board():
    with Fleet(("nowhere.invalid",), A57, limits=Limits(connect_s=1)) as made:
        outcome = made.run(Job(Path(__file__)), load_board("raspberry-pi-4"))
    assert outcome.error == "the fleet has boards jetson-nano-cpu, not raspberry-pi-4"


def test_no_program():
    with Fleet(("nowhere.invalid",), A57) as made:
        (outcome,) = made.run_many([Job(Path("/no/such"))])
    assert outcome.error == "there is no program /no/such"


@needs_sshd
def test_config_that_cannot_be_understood(known, job):
    Path("~/.ssh/config").expanduser().write_text("Host one\n Port many\n")
    with Fleet(("one",), A57) as made, pytest.raises(CodegenError, match="cannot be understood"):
        made.run(job, A57)


@pytest.mark.parametrize("hosts", [(), ("a", "a"), ("a;b",)])
def test_hosts_that_are_none(hosts):
    with pytest.raises(CodegenError):
        Fleet(hosts, A57)


def test_without_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fleet, "Client", None)
    with pytest.raises(CodegenError, match=r"pip install 'codegen\[fleet\]'"):
        Fleet(("a",), A57)
    store = tmp_path / "s.sqlite"
    args = (KWS, "--board", A57.name, "--host", "a", "--host", "b")
    assert codegen("price", *args, "--store", store) == codegen("bench", *args) == 2
    assert capsys.readouterr().err.count("pip install 'codegen[fleet]'") == 2
    assert not store.exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--host", "a", "--host", "a"), "each board's host once"),
        (("--host", "a", "--host", "b;c"), "--host: 'b;c'"),
        (("--runner", "virtual", "--host", "a", "--host", "b"), "a host goes with runner ssh"),
    ],
)
def test_hosts_that_are_no_fleet(capsys, args, said):
    assert codegen("bench", KWS, "--board", A57.name, *args) == 2
    assert said in capsys.readouterr().err
