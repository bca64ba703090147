"""Runs on the board, in every engine's program: reads the task, marks regions for the virtual
board, reads the clock elsewhere, and asks the preloaded counter how much memory was used."""

import ctypes
import json
import os
import time

_LIBC = ctypes.CDLL(None)
_GETPRIORITY, _MARK = 141, 0x43470000  # a `which` that no kernel knows; runtime_c/vboard sees it
WHOLE, WARM_UP = 0, 65535
FEW, SECONDS = 10, 20.0


def _region(begin: int, number: int) -> None:
    _LIBC.syscall(ctypes.c_long(_GETPRIORITY), ctypes.c_long(_MARK + begin), ctypes.c_long(number))


def measure(run, runs: int, **more):
    """Call `run` once to warm up, then once in the marked region (`runs` = 0) or by the clock,
    `runs` times or, of many, for SECONDS; print one line of JSON, with `more` in it. Returns what
    the last call did."""
    cpu = pin()
    _region(1, WARM_UP)
    run()
    _region(0, WARM_UP)
    times = []
    if not runs:
        _region(1, WHOLE)
        result = run()
        _region(0, WHOLE)
    end = time.monotonic() + SECONDS
    while len(times) < runs and (len(times) < FEW or time.monotonic() < end):
        start = time.perf_counter_ns()
        result = run()
        times.append(time.perf_counter_ns() - start)
    told = {"runs_ns": times, "cycles": None, **more}
    print(json.dumps(told if cpu is None else {**told, "cpu": cpu}))
    return result


def pin() -> int | None:
    """Stay on core $CODEGEN_CPU, where the runner names one."""
    chosen = os.environ.get("CODEGEN_CPU", "")
    if not chosen:
        return None
    os.sched_setaffinity(0, {int(chosen)})
    return int(chosen)


class Task:
    """What task.json asks for: `inputs` as arrays by name, names of `outputs`, number of `runs`;
    a number of runs below 0 counts memory instead."""

    def __init__(self):
        import numpy as np

        with open("task.json") as f:
            self.raw = json.load(f)
        self.runs = self.raw["runs"]
        self.outputs = self.raw["outputs"]
        self.inputs = {
            x["name"]: np.fromfile(x["file"], x["dtype"]).reshape(x["shape"])
            for x in self.raw["inputs"]
        }
        if self.runs < 0:
            _LIBC.cg_heap_begin()

    def finish(self, run, array=lambda x: x) -> None:
        """`run` returns the outputs in order, of which `array` makes numpy arrays: measure it, or
        run it once and tell the peak of memory since the task was made. Writes out.bin."""
        import numpy as np

        if self.runs < 0:
            results = run()
            _LIBC.cg_heap_peak.restype = ctypes.c_longlong
            print(json.dumps({"peak_bytes": _LIBC.cg_heap_peak()}))
        else:
            results = measure(run, self.runs)
        with open("out.bin", "wb") as f:
            for result in results:
                f.write(np.ascontiguousarray(array(result)).tobytes())
