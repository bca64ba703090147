"""The cores that codegen knows, as data: named as gcc's -mcpu does, with the part number by which a
board's kernel tells them (MIDR_EL1, from each core's technical reference manual)."""

HOST = "host"  # the core of the machine that codegen runs on, whatever it is
PARTS = {
    "cortex-a34": 0xD02, "cortex-a35": 0xD04, "cortex-a53": 0xD03, "cortex-a55": 0xD05,
    "cortex-a57": 0xD07, "cortex-a72": 0xD08, "cortex-a73": 0xD09, "cortex-a75": 0xD0A,
    "cortex-a76": 0xD0B, "neoverse-n1": 0xD0C, "cortex-a77": 0xD0D, "cortex-a78": 0xD41,
    "cortex-x1": 0xD44, "cortex-a510": 0xD46, "cortex-a710": 0xD47, "cortex-x2": 0xD48,
}  # fmt: skip
