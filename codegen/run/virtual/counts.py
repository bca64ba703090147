"""What the plugin counted, read from its file (written by runtime_c/vboard/plugin.c)."""

from dataclasses import dataclass, field

# In the order of runtime_c/vboard/events.h. "first" is the first use of a prefetched line.
NAMED_EVENTS = (
    "load_l2", "store_l2", "load_memory", "store_memory", "first_load_l2", "first_store_l2",
    "first_load_memory", "first_store_memory", "write_back_l2", "write_back_memory",
    "loads", "stores", "mispredicted",
)  # fmt: skip
# Lines moved to or from memory while the core executed so many other instructions (bus.h): the
# last one takes all that is longer.
SPACING_STEP = 4
SPACINGS = tuple(f"spacing{i * SPACING_STEP}" for i in range(32))
EVENTS = (*NAMED_EVENTS, *SPACINGS)
START = 0  # stands before the first block of an outermost region


class CountError(Exception):
    """The file is missing, cut off, or says that the guest's markers were wrong."""


@dataclass(frozen=True)
class Block:
    """A run of instructions that qemu translated as one; `words` are their encodings."""

    address: int
    words: tuple[int, ...]


@dataclass
class Region:
    """Totals of one region. `events` counts lines, `edges` how often control passed from one block
    to another (indices of blocks)."""

    entries: int
    events: dict[str, int]
    edges: dict[tuple[int, int], int] = field(default_factory=dict)

    def block_counts(self) -> dict[int, int]:
        """How often each block ran: by whatever way control came to it."""
        counts: dict[int, int] = {}
        for (_, to), n in self.edges.items():
            counts[to] = counts.get(to, 0) + n
        return counts


@dataclass(frozen=True)
class Counts:
    """Everything of one run; regions are keyed by the number that the guest gave them."""

    blocks: dict[int, Block]
    regions: dict[int, Region]

    def instructions(self, region: Region) -> int:
        """Executed instructions of a region."""
        return sum(n * len(self.blocks[b].words) for b, n in region.block_counts().items())


_STATUS = {
    "open": "a region was never closed",
    "end-without-begin": "a region was closed that was not the last one opened",
    "too-deep": "regions are nested more than 8 deep",
    "threads": "a region ran on a second thread; the virtual board has one core",
}


def parse_counts(text: str) -> Counts:
    """Read the plugin's file; CountError where it is not whole or the markers were wrong."""
    blocks: dict[int, Block] = {}
    regions: dict[int, Region] = {}
    status = ""
    for line in text.splitlines():
        kind, *rest = line.split()
        if kind == "block":
            index, address, words = rest
            encoded = tuple(int(words[i : i + 8], 16) for i in range(0, len(words), 8))
            blocks[int(index)] = Block(int(address, 16), encoded)
        elif kind == "region":
            number, entries, *events = map(int, rest)
            regions[number] = Region(entries, dict(zip(EVENTS, events, strict=True)))
        elif kind == "edge":
            number, before, after, count = map(int, rest)
            regions[number].edges[before, after] = count
        elif kind == "end":
            status = rest[0]
    if not status:
        raise CountError("the counts are cut off: the program ended in an unusual way")
    if status != "ok":
        raise CountError(_STATUS[status])
    return Counts(blocks, regions)
