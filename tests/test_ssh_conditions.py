"""What boards say about themselves, and what follows from it."""

from dataclasses import replace

import pytest

from codegen.run.ssh.conditions import (
    Conditions,
    Cpu,
    choose_cpu,
    parse_conditions,
    why_throttled,
)

# Output of conditions.READ on boards of three kinds.
JETSON = """\
cpu0/cpufreq/scaling_governor:schedutil
cpu3/cpufreq/scaling_governor:performance
cpu3/cpufreq/scaling_cur_freq:1428000
cpu3/cpufreq/cpuinfo_max_freq:1479000
thermal_zone0/type:AO-therm
thermal_zone1/type:CPU-therm
thermal_zone4/type:PMIC-Die
thermal_zone0/temp:38000
thermal_zone1/temp:31500
thermal_zone4/temp:100000
cooling_device0/type:pwm-fan
cooling_device1/type:thermal-cpufreq-0
cooling_device0/cur_state:2
cooling_device1/cur_state:0
processor\t: 0
CPU part\t: 0xd07
processor\t: 3
CPU part\t: 0xd07
"""
ROCK = """\
cpu0/cpufreq/cpuinfo_max_freq:1416000
cpu1/cpufreq/cpuinfo_max_freq:1416000
cpu4/cpufreq/cpuinfo_max_freq:1800000
cpu5/cpufreq/cpuinfo_max_freq:1800000
cpu0/regs/identification/midr_el1:0x00000000410fd034
cpu1/regs/identification/midr_el1:0x00000000410fd034
cpu4/regs/identification/midr_el1:0x00000000410fd082
cpu5/regs/identification/midr_el1:0x00000000410fd082
"""
PI = """\
/sys/devices/platform/soc/soc:firmware/get_throttled:50005
throttled=0x50005
"""


def test_jetson():
    found = parse_conditions(JETSON)
    assert found.cpus[3] == Cpu(0xD07, "performance", 1_428_000_000, 1_479_000_000)
    assert found.temperature_c == 31.5  # the PMIC's 100 degrees are a constant
    assert found.throttled == ()  # a fan is no brake
    assert found.of_cpu(3) == {"governor": "performance", "cur_freq_hz": 1_428_000_000,
                               "temperature_c": 31.5, "throttled": []}  # fmt: skip


def test_nothing_known():
    found = parse_conditions("sh: grep: not found\n:::\ncpu0/cpufreq/scaling_cur_freq:<unknown>\n")
    assert found.of_cpu(None) == {"governor": None, "cur_freq_hz": None, "temperature_c": None,
                                  "throttled": None}  # fmt: skip
    assert choose_cpu(parse_conditions(""), "cortex-a57") == (None, "")


@pytest.mark.parametrize("text", PI.splitlines())
def test_raspberry_pi_flags(text):
    found = parse_conditions(text)
    assert found.throttled == ("under-voltage", "throttled")
    assert found.ever == {"under-voltage", "throttled"}


@pytest.mark.parametrize(
    ("text", "core", "cpu", "said"),
    [
        (JETSON, "cortex-a57", 3, ""),
        (ROCK, "cortex-a53", 1, ""),  # of equals the last
        (ROCK, "cortex-a72", 5, ""),
        (ROCK, "cortex-a57", None, "has cortex-a53, cortex-a72, not the board's cortex-a57"),
        (ROCK, "my-own-core", 5, ""),  # no number to compare: the fastest
        ("processor : 0\nprocessor : 1\n", "cortex-a57", 1, ""),
    ],
)
def test_core(text, core, cpu, said):
    assert choose_cpu(parse_conditions(text), core) == (cpu, said)


GOOD = Conditions({0: Cpu(None, "performance", 1_000_000_000, 1_000_000_000)}, 40.0, ())


def clock(hertz: int, governor: str = "performance") -> Conditions:
    return replace(GOOD, cpus={0: Cpu(None, governor, hertz, 1_000_000_000)})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (GOOD, GOOD, ""),
        (GOOD, replace(GOOD, throttled=None), ""),
        (GOOD, replace(GOOD, throttled=("hot",)), "the board throttles (hot)"),
        (replace(GOOD, throttled=("hot",)), GOOD, "the board throttles (hot)"),
        (GOOD, replace(GOOD, ever=frozenset({"hot"})), "the board throttles (hot)"),
        (replace(GOOD, ever=frozenset({"hot"})), replace(GOOD, ever=frozenset({"hot"})), ""),
        (GOOD, clock(900_000_000), "the clock fell from 1000 to 900 MHz under governor perf"),
        (GOOD, clock(990_000_000), ""),
        (clock(10**9, "ondemand"), clock(5 * 10**8, "ondemand"), ""),
    ],
)
def test_throttled(before, after, said):
    found = why_throttled(before, after, 0)
    assert said in found
    assert bool(said) == bool(found)
