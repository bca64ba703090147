"""What a board's kernel says about its cores, clock and heat: read before and after a measurement,
judged here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codegen.cores import PARTS

# One read of many small files; grep with two or more files prints "path:line". What a kernel does
# not have is left out.
READ = r"""
cd /sys/devices/system/cpu
grep . /dev/null cpu[0-9]*/cpufreq/scaling_governor cpu[0-9]*/cpufreq/scaling_cur_freq \
    cpu[0-9]*/cpufreq/cpuinfo_max_freq cpu[0-9]*/regs/identification/midr_el1
cd /sys/class/thermal
grep . /dev/null thermal_zone*/type thermal_zone*/temp \
    cooling_device*/type cooling_device*/cur_state
grep . /dev/null /sys/devices/platform/soc/soc:firmware/get_throttled
grep -E '^(processor|CPU part)' /proc/cpuinfo
vcgencmd get_throttled
exit 0
"""

# Raspberry Pi firmware, `vcgencmd get_throttled`: bit n now, bit n + 16 since the board started.
_PI_FLAGS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_THROTTLES = re.compile(r"cpufreq|cpu[-_]?idle|processor|devfreq", re.IGNORECASE)  # no fans
_FREQUENCY_LOSS = 0.02


@dataclass(frozen=True)
class Cpu:
    """One core as its kernel has it; None where that is not told. `part` is MIDR_EL1's."""

    part: int | None = None
    governor: str | None = None
    cur_freq_hz: int | None = None
    max_freq_hz: int | None = None


@dataclass(frozen=True)
class Conditions:
    """`throttled` names what slows the board down at this moment, None where nothing tells.
    `ever` is the same since the board started."""

    cpus: Mapping[int, Cpu] = field(default_factory=dict)
    temperature_c: float | None = None
    throttled: tuple[str, ...] | None = None
    ever: frozenset[str] = frozenset()

    def of_cpu(self, cpu: int | None) -> dict[str, Any]:
        """Plain values for a report, as one core sees them."""
        found = self.cpus.get(-1 if cpu is None else cpu, Cpu())
        return {
            "governor": found.governor,
            "cur_freq_hz": found.cur_freq_hz,
            "temperature_c": self.temperature_c,
            "throttled": None if self.throttled is None else list(self.throttled),
        }


def parse_conditions(text: str) -> Conditions:
    """What READ printed. Lines that make no sense count as not there."""
    files = dict(_file_lines(text))
    now, ever = _pi_flags(text)
    cooling = _cooling(files)
    told = now is not None or cooling is not None
    return Conditions(
        _cpus(files, _cpuinfo_parts(text)),
        _temperature(files),
        (*(now or ()), *(cooling or ())) if told else None,
        frozenset(ever),
    )


def choose_cpu(conditions: Conditions, core: str) -> tuple[int | None, str]:
    """The core to measure on, or why this board is not one with such a core.

    The fastest of the right kind; of equals the last, since Linux serves interrupts on the first.
    None where the board does not tell what it has.
    """
    cpus, wanted = conditions.cpus, PARTS.get(core)
    parts = {c.part for c in cpus.values()} - {None}
    if wanted is not None and parts:
        cpus = {n: c for n, c in cpus.items() if c.part == wanted}
        if not cpus:
            names = {v: k for k, v in PARTS.items()}
            there = ", ".join(sorted(names.get(p, f"part {p:#x}") for p in parts))
            return None, f"has {there}, not the board's {core}"
    if not cpus:
        return None, ""
    return max(cpus, key=lambda n: (cpus[n].max_freq_hz or 0, n)), ""


def why_throttled(before: Conditions, after: Conditions, cpu: int | None) -> str:
    """Why what ran in between did not have the whole board, or nothing."""
    flags = after.throttled or before.throttled or tuple(sorted(after.ever - before.ever))
    if flags:
        return f"the board throttles ({', '.join(flags)})"
    if cpu is None:
        return ""
    old, new = before.cpus.get(cpu, Cpu()), after.cpus.get(cpu, Cpu())
    # Other governors lower the clock of a core that has just become idle.
    if old.governor == new.governor == "performance" and old.cur_freq_hz and new.cur_freq_hz:
        loss = 1 - new.cur_freq_hz / old.cur_freq_hz
        if loss > _FREQUENCY_LOSS:
            return (
                f"the clock fell from {old.cur_freq_hz / 1e6:.0f} to {new.cur_freq_hz / 1e6:.0f} "
                "MHz under governor performance"
            )
    return ""


def _file_lines(text: str) -> list[tuple[str, str]]:
    found = (re.fullmatch(r"([\w./:@-]*[a-z]\w*/[\w./-]+):(.*)", x) for x in text.splitlines())
    return [(m[1], m[2].strip()) for m in found if m]


def _number(text: str | None, base: int = 10) -> int | None:
    try:
        return int(text or "", base)
    except ValueError:
        return None


def _cpus(files: Mapping[str, str], parts: Mapping[int, int | None]) -> dict[int, Cpu]:
    """cpuinfo lists the cores that are on; /sys those that could be."""
    named = {int(m[1]) for m in (re.match(r"cpu(\d+)/", f) for f in files) if m}
    return {n: _cpu(files, n, parts.get(n)) for n in sorted(parts or named)}


def _cpu(files: Mapping[str, str], n: int, part: int | None) -> Cpu:
    def hertz(name: str) -> int | None:
        value = _number(files.get(f"cpu{n}/cpufreq/{name}"))
        return None if value is None else value * 1000

    midr = _number(files.get(f"cpu{n}/regs/identification/midr_el1"), 16)
    return Cpu(
        part if midr is None else midr >> 4 & 0xFFF,
        files.get(f"cpu{n}/cpufreq/scaling_governor"),
        hertz("scaling_cur_freq"),
        hertz("cpuinfo_max_freq"),
    )


def _cpuinfo_parts(text: str) -> dict[int, int | None]:
    out: dict[int, int | None] = {}
    for line in text.splitlines():
        key, _, value = (w.strip() for w in line.partition(":"))
        number = _number(value, 0)
        if key == "processor" and number is not None:
            out[number] = None
        elif key == "CPU part" and out:
            out[max(out)] = number
    return out


def _temperature(files: Mapping[str, str]) -> float | None:
    """Of the cores' own zone if one is named so; a board's other zones may be constants."""
    zones = sorted(
        (next((i for i, w in enumerate(("cpu", "soc")) if w in kind.lower()), 2), zone)
        for zone, kind in ((f[: -len("/type")], v) for f, v in files.items()
                           if re.fullmatch(r"thermal_zone\d+/type", f))
    )  # fmt: skip
    for _, zone in zones:
        value = _number(files.get(f"{zone}/temp"))
        if value is not None:
            return value / 1000
    return None


def _cooling(files: Mapping[str, str]) -> list[str] | None:
    """Cooling devices that slow cores down and are at work; None where there are none at all."""
    kinds = {f.split("/")[0]: v for f, v in files.items()
             if re.fullmatch(r"cooling_device\d+/type", f) and _THROTTLES.search(v)}  # fmt: skip
    if not kinds:
        return None
    states = {d: _number(files.get(f"{d}/cur_state")) or 0 for d in kinds}
    return [f"{kinds[d]} at {s}" for d, s in sorted(states.items()) if s]


def _pi_flags(text: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Now, and since the start; (None, ()) on other boards."""
    found = re.search(r"^(?:throttled=0x|\S*/get_throttled:(?:0x)?)([0-9a-fA-F]+)$", text, re.M)
    if not found:
        return None, ()
    bits = int(found[1], 16)
    now = tuple(w for i, w in enumerate(_PI_FLAGS) if bits >> i & 1)
    return now, tuple(w for i, w in enumerate(_PI_FLAGS) if bits >> (i + 16) & 1)
