"""How many bytes a region moved between the caches, from what the plugin counted.

Lines count where the model's cycles count them: when they are asked for, or, if the prefetcher
brought them, when they are first used. A line that a store misses everywhere is not read: these
cores write whole lines without reading them first (runtime_c/vboard/bus.h).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.cycle_model import LINE_BYTES


@dataclass(frozen=True)
class Moved:
    """Bytes towards the core, and away from it."""

    read: int
    write: int

    @property
    def both(self) -> int:
        return self.read + self.write


@dataclass(frozen=True)
class Traffic:
    """Between L1D and L2, and between L2 and memory. What comes from memory passes through L2."""

    l1_l2: Moved
    l2_memory: Moved


def traffic(events: Mapping[str, int]) -> Traffic:
    """Of events as in counts.NAMED_EVENTS."""
    from_memory = events["load_memory"] + events["first_load_memory"]
    from_l2 = sum(events[e] for e in ("load_l2", "first_load_l2", "store_l2", "first_store_l2"))
    return Traffic(
        _moved(from_l2 + from_memory, events["write_back_l2"]),
        _moved(from_memory, events["write_back_memory"]),
    )


def _moved(read: int, written: int) -> Moved:
    return Moved(LINE_BYTES * read, LINE_BYTES * written)
