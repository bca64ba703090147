"""One job at a time on one board: a lease that lies on the board, and the job's folder with it.

A shell on the board (keeper.sh) holds both for as long as its input is open and words come, so they
end with this process or the connection, however these end.
"""

import getpass
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import paramiko

from codegen.run.ssh.problems import BoardProblem
from codegen.run.ssh.shell import GONE, posix, quietly, start

_KEEPER = Path(__file__).with_name("keeper.sh").read_text()
_ANSWERS = ("took", "held", "free", "fail", "ok")  # other lines are a login shell's greetings
_ASK_S = 0.5  # how often a lease is asked for that another holds


class Lease:
    """`with Lease(...) as lease`: the board is ours, `lease.folder` is a private folder on it.

    Waits up to `wait_s` for another's lease to end, then BoardProblem says whose it is. A board
    that is silent for `silence_s` is lost, and `check` raises; a board that hears nothing for that
    long stops the job and cleans up.
    """

    def __init__(self, client: paramiko.SSHClient, wait_s: float, silence_s: float):
        self.client, self.wait_s, self.silence_s = client, wait_s, silence_s
        self.folder = ""
        self._lost = ""
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Lease":
        who = re.sub(r"[^\w.@-]", "_", f"{getpass.getuser()}@{socket.gethostname()}")
        silence = str(max(1, round(self.silence_s)))
        command = posix(_KEEPER, secrets.token_hex(16), who, silence)
        self.channel = start(self.client, command, self.silence_s)
        self.answers = self.channel.makefile("r", 1)
        try:
            self.folder = self._wait()
            self._heart.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Returns when the board has cleaned up, or after `silence_s`, when it will by itself."""
        self._over.set()
        with suppress(*GONE), quietly(self.channel):
            self.channel.shutdown_write()
            if self._heart.is_alive():
                self._heart.join(self.silence_s)
            while self.channel.recv(1024):
                pass

    def check(self) -> None:
        """BoardProblem if the board was lost meanwhile."""
        if self._lost:
            raise BoardProblem(self._lost)

    def rest(self, seconds: float) -> None:
        """Keep the board and do nothing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(min(_ASK_S, max(0.0, end - time.monotonic())))

    def _wait(self) -> str:
        """The folder, once the lease is ours."""
        end = time.monotonic() + self.wait_s
        while True:
            word, _, rest = self._ask("take").partition(" ")
            if word == "took":
                return rest
            if word == "fail":
                raise BoardProblem(rest)
            if time.monotonic() >= end:
                by = f"leased by {rest}" if word == "held" else f"not to be leased: {rest}"
                raise BoardProblem(f"the board is {by}; waited {self.wait_s:g} s")
            time.sleep(_ASK_S)

    def _ask(self, word: str) -> str:
        try:
            self.channel.sendall(f"{word}\n".encode())
            answer = next((x for x in self.answers if x.strip().split(" ")[0] in _ANSWERS), "")
        except GONE as e:
            raise BoardProblem(f"the board is silent ({e or 'time-out'})") from None
        if not answer:
            said = self.channel.recv_stderr(2000) if self.channel.recv_stderr_ready() else b""
            raise BoardProblem(
                f"the board's shell ended: {said.decode(errors='replace').strip() or 'no reason'}"
            )
        return answer.strip()

    def _beat(self) -> None:
        """Four signs of life in the time after which either side gives up."""
        while not self._over.wait(self.silence_s / 4):
            try:
                self._ask("beat")
            except BoardProblem as e:
                if not self._over.is_set():
                    self._lost = f"the board is lost: {e}"
                    self.client.close()  # whoever waits for it ends too
                return
