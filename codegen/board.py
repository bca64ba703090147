"""TEMPORARY stub; replaced by the real one."""
from dataclasses import dataclass
@dataclass(frozen=True)
class Board:
    name: str; core: str; isa: tuple; cflags: tuple; qemu_cpu: str; runners: tuple; triple: str; clock_hz: int = 0
def load_board(name):
    if name == "local":
        return Board("local", "x86", ("neon",), ("-O2", "-mfma"), "", ("local",), "native")
    core = {"jetson-nano-cpu": "cortex-a57", "raspberry-pi-3b-plus": "cortex-a53", "raspberry-pi-4": "cortex-a72"}[name]
    return Board(name, core, ("neon",), ("-mcpu=" + core, "-O2"), core, ("qemu",), "aarch64-linux-gnu")
