"""Measurements that come with the program: the fastest rows for layers of common networks.

`<core>.json` maps a layer's signature to its best kernel and cost (thousands of cycles) for each
layout (`nchw>nhwc` where a row reads one and writes the other), as measured in micro-benchmarks on
the virtual board. `python -m benchmarks.record` writes it. It only helps to choose: a row that no
longer exists, or a layer that is not there, is left to the cost formula, and a row that is newer
than the file is not preferred to what the file names.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# Cores alike in what they issue per cycle: where the one has no figures for a layer, the other's
# say at least which rows are good.
NEAREST = {"cortex-a72": "cortex-a57", "cortex-a57": "cortex-a72", "cortex-a55": "cortex-a53"}
# signature key -> layout -> (kernel, thousands of cycles)
Recorded = Mapping[str, Mapping[str, tuple[str, float]]]


@lru_cache(maxsize=8)
def load_recorded(core: str, folder: Path = FOLDER) -> Recorded:
    """What is known of a core, named as in board files: its own measurements, and those of the
    nearest core for layers that it lacks."""
    return {**read_recorded(NEAREST.get(core, ""), folder), **read_recorded(core, folder)}


def read_recorded(core: str, folder: Path = FOLDER) -> Recorded:
    """A core's own measurements; nothing for cores without a file."""
    path = folder / f"{core}.json"
    if not path.is_file():
        return {}
    layers = json.loads(path.read_text())["layers"]
    return {k: {layout: tuple(best) for layout, best in v.items()} for k, v in layers.items()}
