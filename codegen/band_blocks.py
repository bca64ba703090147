"""Sizes of kernels that go over an image in bands of rows: depthwise convolutions, chains of
convolutions, and pairs of them."""

from collections.abc import Mapping
from typing import Any

from codegen.half_blocks import equal_tiles
from codegen.tile_order import tile_order


def depthwise_sweeps(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """How a depthwise kernel goes over the image: `bands` of p["rows"] output rows, `sweeps` of
    equally many outputs in a row. Bands whose windows hang over the image alike have one `kind`:
    of the rows of inputs, lo..hi are inside."""
    bands: list[dict[str, int]] = []
    for start in range(0, d["oh"], p["rows"]):
        rows = min(p["rows"], d["oh"] - start)
        top = start * d["sh"] - d["pt"]
        inside = (rows - 1) * d["sh"] + d["kh"]
        shape = {"rows": rows, "lo": max(0, -top), "hi": min(inside, d["h"] - top)}
        if bands and shape.items() <= bands[-1].items():
            bands[-1]["end"] += rows
        else:
            bands.append({**shape, "start": start, "end": start + rows, "kind": len(bands)})
    parts = -(-d["ow"] // p["columns"])
    n = -(-d["ow"] // parts)
    short = parts * n - d["ow"]  # so many sweeps are one output shorter
    long = (parts - short) * n
    sweeps = [{"n": n, "start": 0, "end": long, "kind": 0}]
    if short:
        sweeps.append({"n": n - 1, "start": long, "end": d["ow"], "kind": 1})
    return {"bands": bands, "sweeps": sweeps}


def plane_of(d: Mapping[str, Any]) -> int:
    """Floats of a channel in ONNX order; a part of an image has those of the whole."""
    return d.get("plane") or d["h"] * d["w"]


def chain_whole(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, int]:
    """Scratch for whole tensors between the stages of a chain."""
    first = d["eh"] * d["ew"] * d["e"] if d["expand"] else 0
    return {"scratch_floats": first + (d["oh"] * d["ow"] * d["e"] if d["project"] else 0)}


def chain_bands(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """A chain in bands of p["rows"] rows; with p["slice"], for at most so many channels of the
    whole image at a time. Scratch: z, what a sweep leaves to the projection; line, a ring of
    `slots` expanded rows; patches. A sweep may name the column before a row, so that something
    lies before the first."""
    split = depthwise_sweeps({**d, "h": d["eh"], "w": d["ew"]}, p)
    channels, slots = d["e"], p.get("slots") or min((p["rows"] - 1) * d["sh"] + d["kh"], d["eh"])
    if p["slice"]:
        units = [s for s in range(8, min(p["slice"], d["e"]) + 1, 8) if d["e"] % s == 0]
        channels = max(units)
    sweeps = [{**s, "tiles": equal_tiles(s["n"], p["mr"])} for s in split["sweeps"]]
    z_pixels = min(p["rows"], d["oh"]) * sweeps[0]["n"]
    line_at = 4 * d["pl"] + (channels * z_pixels if d["project"] else 0)
    patch_at = line_at + slots * d["ew"] * channels
    depth = -(-d["ekh"] * d["ekw"] * d["c"] // 4) * 4 if d["expand"] == 2 else 0
    expand = equal_tiles(d["ew"], p["mr"])
    project = sorted({t["size"] for s in sweeps for t in s["tiles"]}, reverse=True)
    heights = {t["size"] for t in expand} | set(project) if p.get("in_order") else ()
    return {
        "bands": split["bands"], "sweeps": sweeps, "expand_tiles": expand,
        "project_tiles": project,
        "orders": {(t, p["nr"] // 4): tile_order(t, p["nr"] // 4) for t in heights},
        "slots": slots, "slice": channels, "z_pixels": z_pixels,
        "line_at": line_at, "patch_at": patch_at, "patch_depth": depth,
        "depth": d["c"] if d["expand"] == 1 else depth,
        "plane": plane_of(d) if p.get("reads") else 0, "rolling": 0,
        "scratch_floats": patch_at + slots * d["ew"] * depth + (4 if p.get("reads") else 0),
    }  # fmt: skip


def pair_whole(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Scratch for whole tensors: what lies between two chains, and what one of them needs."""
    one, two = ({**d[k], **chain_whole(d[k], p)} for k in ("first", "second"))
    between = d["n"] * one["oh"] * one["ow"] * one["m"]
    most = max(one["scratch_floats"], two["scratch_floats"])
    return {"one": one, "two": two, "between": between, "scratch_floats": between + most}


def pair_bands(d: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Two chains in bands: p["first_rows"] rows of the tensor between them are made, expanded and
    forgotten at a time, whenever a band of p["rows"] rows of the result needs more. Scratch: z, in
    turns; the rings of both; patches; the rows between."""
    first = {**p, "rows": p["first_rows"]}
    one = {**d["first"], **chain_bands(d["first"], first)}
    inner = {k: v for k, v in p.items() if k != "reads"}
    slots = _pair_slots(d["second"], p["rows"], p["first_rows"])
    two = {**d["second"], **chain_bands(d["second"], {**inner, "slots": slots}), "rolling": 1}
    z = max(c["z_pixels"] * c["slice"] * c["project"] for c in (one, two))
    line_at = z + 4 * one["pl"]
    line2_at = line_at + one["slots"] * one["ew"] * one["slice"] + 4 * two["pl"]
    patch_at = line2_at + two["slots"] * two["ew"] * two["slice"]
    # behind the last patch a vector may lie over
    between_at = patch_at + one["slots"] * one["ew"] * one["patch_depth"] + 4
    size = p["first_rows"] * one["ow"] * one["m"]
    return {
        "one": {**first, **one, "line_at": line_at, "patch_at": patch_at, "y_pitch": one["m"]},
        "two": {**inner, **two, "line_at": line2_at},
        "plane": one["plane"], "between_at": between_at, "scratch_floats": between_at + size,
    }  # fmt: skip


def _pair_slots(d: Mapping[str, Any], rows: int, made: int) -> int:
    """Rows of the second chain's ring: `made` rows are added at a time while a band lacks some."""
    have = most = 0
    for start in range(0, d["oh"], rows):
        top = start * d["sh"] - d["pt"]
        last = min(start + rows, d["oh"]) - 1
        need = min(last * d["sh"] - d["pt"] + d["kh"], d["eh"])
        have = max(have, min(-(-need // made) * made, d["eh"]))
        most = max(most, have - max(top, 0))
    return most
