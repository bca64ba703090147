"""The queue: which board gets which job, and what happens when a board dies."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from codegen.board import Board
from codegen.errors import CodegenError
from codegen.run import Job, Outcome
from codegen.run.ssh import Limits
from codegen.run.ssh.address import split_host

try:
    from distributed import Client, Future, KilledWorker, LocalCluster, wait

    from codegen.fleet.task import Task, measure
except ImportError:  # said when a fleet is wanted
    Client = None

_LOSSES = 2  # in a row: then a board is given up
_LOOK_S = 2.0  # how often it is looked whether workers of other machines still live


@dataclass
class _Work:
    """One job's way through the fleet."""

    job: Job
    lost_on: list[str] = field(default_factory=list)
    allowed: frozenset[str] = frozenset()  # addresses of workers it may be on
    outcome: Outcome | None = None


class Fleet:
    """`with Fleet(hosts, board) as fleet: outcomes = fleet.run_many(jobs)`; also a runner itself,
    whose figures are those of runner ssh, and which several threads may call at once.

    Each board does one job at a time: its Dask worker has one of the resource that is called like
    the board, and every job needs one. A job whose board is lost goes to another one, at most
    `retries` times; a board that is lost twice in a row gets no more jobs and is named in `lost`.
    With a `client`, the fleet's boards are the workers of that scheduler with this resource, each
    named by its host: `dask worker SCHEDULER --nthreads 1 --name ALIAS --resources BOARD=1`.
    """

    name = "ssh"

    def __init__(
        self,
        hosts: Sequence[str],
        board: Board,
        accept_host_key: bool = False,
        limits: Limits | None = None,
        retries: int = 2,
        client: "Client | None" = None,
    ):
        if Client is None:
            raise CodegenError(
                "fleet",
                "package 'distributed' is not installed",
                "a fleet needs it",
                "run `pip install 'codegen[fleet]'`",
            )
        _check(hosts, client)
        self.board, self.accept_host_key, self.retries = board, accept_host_key, retries
        self.limits = limits or Limits()
        self.lost: dict[str, str] = {}
        self.host = ", ".join(hosts)
        self._losses: dict[str, int] = {}
        self._lock = Lock()
        self._cluster = None
        self._hosts = dict(enumerate(hosts)) if client is None else {}
        if client is None:
            self._cluster = LocalCluster(
                n_workers=len(hosts), processes=False, threads_per_worker=1,
                resources={board.name: 1}, dashboard_address=None,
            )  # fmt: skip
        self.client = client or Client(self._cluster)

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves a client that was given as it is."""
        if self._cluster is not None:
            self.client.close()
            self._cluster.close()

    @property
    def boards(self) -> int:
        """How many of them can work now, so how many jobs may well be asked for at once."""
        return len(self._boards())

    def run(self, job: Job, board: Board) -> Outcome:
        """As every runner; the board must be the fleet's."""
        if board != self.board:
            return Outcome(error=f"the fleet has boards {self.board.name}, not {board.name}")
        return self.run_many([job])[0]

    def run_many(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One outcome for each job, in order, whatever happens to the boards."""
        works = [_Work(job) for job in jobs]
        queue, running = deque(works), {}
        while queue or running:
            boards = self._boards()
            while queue and len(running) < len(boards):
                work = queue.popleft()
                if work.job.program.is_file():
                    running[self._submit(work, boards)] = work
                else:
                    work.outcome = Outcome(error=f"there is no program {work.job.program}")
            if queue and not running:
                for work in queue:
                    work.outcome = Outcome(error=self._none_left(), lost=True)
                break
            for future in self._ended(running) if running else ():
                work = running.pop(future)
                if not self._finished(work, future):
                    queue.appendleft(work)
        return [w.outcome or Outcome(error="the fleet lost the job", lost=True) for w in works]

    def _boards(self) -> dict[str, str]:
        """Address of the worker -> host, of those that live and are not given up."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        mine = {a: self._hosts.get(w["name"], str(w["name"])) for a, w in workers.items()
                if self.board.name in w["resources"]}  # fmt: skip
        return {a: h for a, h in mine.items() if h not in self.lost}

    def _submit(self, work: _Work, boards: dict[str, str]) -> "Future":
        """To a board that has not lost the job yet, if there is one."""
        fresh = frozenset(a for a, h in boards.items() if h not in work.lost_on)
        work.allowed = fresh or frozenset(boards)
        program = work.job.program.read_bytes()
        task = Task(work.job, program, self.board, self._hosts, self.accept_host_key, self.limits)
        return self.client.submit(measure, task, workers=sorted(work.allowed), pure=False,
                                  resources={self.board.name: 1})  # fmt: skip

    def _ended(self, running: "dict[Future, _Work]") -> "list[Future]":
        """Jobs that came to an end, or that no living worker will ever do."""
        try:
            ended = list(wait(list(running), timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            ended = []
        alive = set(self._boards())
        stuck = [f for f, w in running.items() if f not in ended and not w.allowed & alive]
        for future in stuck:
            future.cancel()
        return ended + stuck

    def _finished(self, work: _Work, future: "Future") -> bool:
        """Take the result; False where the job must be done again."""
        host, outcome = _result(future)
        if outcome.lost:
            work.lost_on.append(host)
        with self._lock:
            self._count(host, outcome)
        if outcome.lost and len(work.lost_on) <= self.retries:
            return False
        work.outcome = outcome
        return True

    def _count(self, host: str, outcome: Outcome) -> None:
        """Losses in a row; a host without a name is a worker that did not live to tell."""
        self._losses[host] = self._losses.get(host, 0) + 1 if outcome.lost else 0
        if host and self._losses[host] >= _LOSSES:
            self.lost[host] = outcome.error

    def _none_left(self) -> str:
        why = "; ".join(self.lost.values()) or "no worker has this board"
        return f"no board {self.board.name} is left: {why}"


def _check(hosts: Sequence[str], client: "Client | None") -> None:
    for host in hosts:
        split_host(host)
    if len(set(hosts)) != len(hosts) or bool(hosts) == (client is not None):
        raise CodegenError(
            "fleet",
            f"hosts {', '.join(hosts) or '(none)'}",
            "each board's host once; none where a Dask client brings the boards",
            "correct the list",
        )


def _result(future: "Future") -> tuple[str, Outcome]:
    """Host and outcome; the host is empty where the worker did not live to tell."""
    if future.status == "finished":
        return future.result()
    problem = None if future.cancelled() else future.exception()
    if problem is not None and not isinstance(problem, KilledWorker):
        raise problem  # the user's ssh config, or a bug
    why = problem or "no worker that may do it is left"
    return "", Outcome(error=f"the job's worker was lost: {why}", lost=True)
