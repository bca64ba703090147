"""Packers: the constants of a node in the form in which its kernel streams them; numpy only, at
generation time."""

from collections.abc import Callable

import numpy as np

from codegen import int8_weights, winograd, winograd_blocks
from codegen.constants import Constants, Packed, padded
from codegen.sparse_blocks import sparse_part
from codegen.sparsity import HEIGHT, compress
from codegen.strassen import strassen_weights


def _vectors(c: Constants, n: int, unit: int, groups: int = 1) -> Packed:
    """Bias always, slopes where the epilogue has them; each group's share padded to a multiple
    of `unit`."""

    def shares(v: np.ndarray | None) -> np.ndarray:
        parts = (
            [None] * groups
            if v is None
            else np.broadcast_to(v.reshape(-1), (n,)).reshape(groups, -1)
        )
        dtype = c.inputs[0].dtype
        return np.concatenate([padded(part, n // groups, unit, dtype) for part in parts])

    out = [("b", shares(c.inputs[1] if len(c.inputs) > 1 else None))]
    return out + ([("s", shares(c.slope))] if c.slope is not None else [])


def column_panels(w: np.ndarray, nr: int) -> np.ndarray:
    """[k][n] -> [ceil(n/nr)][k][nr], zero padded: the right-hand operand as a micro-kernel reads
    it."""
    k, n = w.shape
    panels = -(-n // nr)
    out = np.zeros((panels * nr, k), w.dtype)
    out[:n] = w.T
    return np.ascontiguousarray(out.reshape(panels, nr, k).transpose(0, 2, 1))


def conv_panels_nhwc(c: Constants) -> Packed:
    """OIHW weights -> column panels of the [kh*kw*c][m] matrix of an NHWC im2col, per group."""
    d, nr = c.dims, c.params["nr"]
    w, g = c.inputs[0], c.dims["groups"]
    mg = d["m"] // g
    w4 = w.reshape(d["m"], d["c"] // g, d["kh"], d["kw"]).transpose(0, 2, 3, 1).reshape(d["m"], -1)
    panels = np.concatenate([column_panels(w4[i * mg : (i + 1) * mg].T, nr) for i in range(g)])
    return [("w", panels), *_vectors(c, d["m"], nr, g)]


def _window_rows(c: Constants, w: np.ndarray) -> np.ndarray:
    """OIHW weights -> [o][depth] in the order of a row's patches, channels last unless the row
    reads ONNX order, the depth padded with zeros to a multiple of 4."""
    w = w if c.params.get("reads") == "nchw" else w.transpose(0, 2, 3, 1)
    rows = w.reshape(len(w), -1)
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))


def conv_panels_planes(c: Constants) -> Packed:
    """OIHW weights -> column panels [depth][nr] of windows over an image in ONNX order, the depth
    padded with zeros to a multiple of 4. groups is 1."""
    d, nr = c.dims, c.params["nr"]
    w4 = c.inputs[0].reshape(d["m"], d["c"], d["kh"], d["kw"])
    return [("w", column_panels(_window_rows(c, w4).T, nr)), *_vectors(c, d["m"], nr)]


def conv_panels_narrow(c: Constants) -> Packed:
    """OIHW weights -> column panels [depth][nr] of windows, the depth padded with zeros to a
    multiple of 4, the last panel only as wide as its vectors of 4. groups is 1."""
    d, nr = c.dims, c.params["nr"]
    w4 = c.inputs[0].reshape(d["m"], d["c"], d["kh"], d["kw"])
    return [("w", _narrow_panels(_window_rows(c, w4).T, nr)), *_vectors(c, d["m"], 4)]


def conv_panels_half(c: Constants) -> Packed:
    """OIHW weights -> column panels [kh*kw*c][nr], the last one only as wide as its vectors of 8
    halves. groups is 1."""
    d = c.dims
    rows = c.inputs[0].reshape(d["m"], d["c"], -1).transpose(0, 2, 1).reshape(d["m"], -1)
    return [("w", _narrow_panels(rows.T, c.params["nr"], 8)), *_vectors(c, d["m"], 8)]


def winograd_panels_half(c: Constants) -> Packed:
    """OIHW weights of 3x3, G g G' of F(2x2, 3x3): per panel of channels 16 matrices [c][nr], the
    last one only as wide as its vectors of 8 halves."""
    d, nr, w = c.dims, c.params["nr"], c.inputs[0]
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    u = np.einsum("ia,mcab,jb->ijcm", g, w.astype(np.float64), g)
    u = np.pad(u.reshape(16, d["c"], d["m"]), ((0, 0), (0, 0), (0, -d["m"] % 8))).astype(w.dtype)
    panels = [u[:, :, j : j + nr].reshape(-1) for j in range(0, u.shape[2], nr)]
    return [("w", np.concatenate(panels)), *_vectors(c, d["m"], 8)]


def conv_panels_strassen(c: Constants) -> Packed:
    """1x1 weights [m][c] -> seven factors of halves, each in column panels [c/2][nr], the last only
    as wide as its vectors of 4."""
    d = c.dims
    factors = strassen_weights(c.inputs[0].reshape(d["m"], d["c"]).T)
    panels = [_narrow_panels(f, c.params["nr"]) for f in factors]
    return [("w", np.concatenate(panels)), *_vectors(c, d["m"], 4)]


def _narrow_panels(w: np.ndarray, nr: int, unit: int = 4) -> np.ndarray:
    """[k][n] -> panels [k][nr], one after the other, the last one with n % nr columns, padded with
    zeros to a multiple of `unit`."""
    w = np.pad(w, ((0, 0), (0, -w.shape[1] % unit)))
    return np.concatenate([w[:, j : j + nr].reshape(-1) for j in range(0, w.shape[1], nr)])


def conv_panels_nchw(c: Constants) -> Packed:
    """OIHW weights -> row panels [ceil(m/mr)][c*kh*kw][mr] of the [m][k] matrix, per group."""
    d, mr = c.dims, c.params["mr"]
    g = d["groups"]
    mg = d["m"] // g
    w2 = c.inputs[0].reshape(d["m"], -1)
    panels = np.concatenate([column_panels(w2[i * mg : (i + 1) * mg].T, mr) for i in range(g)])
    return [("w", panels), *_vectors(c, d["m"], mr, g)]


def conv_taps_nhwc(c: Constants) -> Packed:
    """Depthwise weights [m][1][kh][kw] -> [kh][kw][m]."""
    d = c.dims
    w = c.inputs[0].reshape(d["m"], d["kh"], d["kw"]).transpose(1, 2, 0)
    return [("w", np.ascontiguousarray(w)), *_vectors(c, d["m"], 1)]


def conv_taps_nchw(c: Constants) -> Packed:
    """Depthwise weights as they are, [m][kh*kw]."""
    return [("w", c.inputs[0].reshape(c.dims["m"], -1)), *_vectors(c, c.dims["m"], 1)]


def conv_taps_c4(c: Constants) -> Packed:
    """Depthwise weights [m][1][kh][kw] -> [m/4][kh*kw][4]; m is a multiple of 4."""
    d = c.dims
    w = c.inputs[0].reshape(d["m"] // 4, 4, d["kh"] * d["kw"]).transpose(0, 2, 1)
    return [("w", np.ascontiguousarray(w)), *_vectors(c, d["m"], 4)]


def conv_taps_c16(c: Constants) -> Packed:
    """Depthwise weights [m][1][kh][kw] -> [m/16][kh*kw][16], the last block only as wide as its
    channels; m is a multiple of 4."""
    return _taps(c, 16, 4)


def conv_taps_c32(c: Constants) -> Packed:
    """Depthwise weights [m][1][kh][kw] -> [m/32][kh*kw][32], the last block only as wide as its
    channels; m is a multiple of 8."""
    return _taps(c, 32, 8)


def _taps(c: Constants, block: int, unit: int) -> Packed:
    d = c.dims
    taps = c.inputs[0].reshape(d["m"], d["kh"] * d["kw"])
    blocks = [taps[i : i + block].T.ravel() for i in range(0, d["m"], block)]
    return [("w", np.concatenate(blocks)), *_vectors(c, d["m"], unit)]


def winograd_panels(c: Constants) -> Packed:
    """OIHW weights, transformed, as [blocks][positions][parts][panels of a block][depth][nr]; with
    p["last"], the last panel is only as wide as its vectors of 4."""
    d, nr = c.dims, c.params["nr"]
    y, x, joined = winograd_blocks.axes(d, c.params)
    sizes = winograd_blocks.winograd_blocks(d, c.params)
    positions = winograd.transform_weights(c.inputs[0], y, x, joined)
    unit = c.params.get("last", nr)
    depth, chunks = sizes["depth"], sizes["chunks"]
    padding = ((0, depth * chunks - len(positions[0][0])), (0, -d["m"] % unit))
    positions = [
        [chunk for part in parts for chunk in np.split(np.pad(part, padding), chunks)]
        for parts in positions
    ]
    w = [
        part[:, at : at + nr].reshape(-1)
        for o in range(0, d["m"], sizes["width"])
        for parts in positions
        for part in parts
        for at in range(o, min(o + sizes["width"], d["m"]), nr)
    ]
    return [("w", np.concatenate(w)), *_vectors(c, d["m"], unit)]


def conv_chain(c: Constants) -> Packed:
    """Weights and biases of the stages of a chain: panels [e/nr][k][nr] of the expansion (windows
    padded with zeros to a multiple of 4), taps [e/4][kh*kw][4], panels [m/nr][e][nr]."""
    d, nr = c.dims, c.params["nr"]
    w1, b1, w2, b2, *project = c.inputs
    out: Packed = []
    if w1 is not None:
        rows = w1.reshape(d["e"], -1) if d["expand"] == 1 else _window_rows(c, w1)
        out += [("w1", column_panels(rows.T, nr)), ("b1", padded(b1, d["e"], nr))]
    taps = w2.reshape(d["e"] // 4, 4, -1).transpose(0, 2, 1)
    out += [("w2", np.ascontiguousarray(taps)), ("b2", padded(b2, d["e"], 4))]
    if project:
        w3, b3 = project[0].reshape(d["m"], -1).T, project[1]
        out += [("w3", column_panels(w3, nr)), ("b3", padded(b3, d["m"], nr))]
    if c.slope is not None:
        out.append(("s", padded(np.broadcast_to(c.slope.reshape(-1), (d["m"],)), d["m"], nr)))
    return out


def conv_chain_pair(c: Constants) -> Packed:
    """Weights and biases of two chains; those of the second are w4, b4 and so on."""
    first = conv_chain(Constants(c.inputs[:6], None, c.dims["first"], c.params))
    second = conv_chain(Constants(c.inputs[6:], c.slope, c.dims["second"], c.params))
    names = {f"{v}{i}": f"{v}{i + 3}" for v in "wb" for i in (1, 2, 3)}
    return first + [(names.get(name, name), array) for name, array in second]


def conv_transpose_panels(c: Constants) -> Packed:
    """Weights [c][m][kh][kw] of a transposed convolution -> [panels of m][kh][kw][c][nr]."""
    d, nr = c.dims, c.params["nr"]
    rows = c.inputs[0].reshape(d["c"], d["m"], -1).transpose(2, 0, 1).reshape(-1, d["m"])
    return [("w", column_panels(rows, nr)), *_vectors(c, d["m"], nr)]


def dense_panels(c: Constants) -> Packed:
    """[k][n] -> column panels."""
    return [
        ("w", column_panels(c.inputs[0], c.params["nr"])),
        *_vectors(c, c.dims["n"], c.params["nr"]),
    ]


def dense_panels_narrow(c: Constants) -> Packed:
    """[k][n] -> column panels, the last only as wide as its vectors of 4."""
    return [
        ("w", _narrow_panels(c.inputs[0], c.params["nr"])),
        *_vectors(c, c.dims["n"], 4),
    ]


def dense_panels_half(c: Constants) -> Packed:
    """[k][n] -> column panels, the last only as wide as its vectors of 8 halves."""
    return [
        ("w", _narrow_panels(c.inputs[0], c.params["nr"], 8)),
        *_vectors(c, c.dims["n"], 8),
    ]


def conv_sparse(c: Constants) -> Packed:
    """1x1 weights [m][c] -> the blocks that are not all zeros, in parts of the inputs."""
    d = c.dims
    return _blocks(c, c.inputs[0].reshape(d["m"], d["c"]).T, sparse_part(d, c.params))


def dense_sparse(c: Constants) -> Packed:
    """[k][n] -> the blocks that are not all zeros."""
    return _blocks(c, c.inputs[0], c.dims["k"])


def _blocks(c: Constants, w: np.ndarray, part: int) -> Packed:
    blocks = compress(w, part)
    arrays = [("w", blocks.values), ("k", blocks.index), ("first", blocks.first)]
    return [*arrays, *_vectors(c, w.shape[1], HEIGHT)]


PACKERS: dict[str, Callable[[Constants], Packed]] = {
    f.__name__: f
    for f in (
        conv_panels_nhwc, conv_panels_narrow, conv_panels_planes, conv_panels_strassen,
        conv_panels_nchw,
        conv_taps_nhwc, conv_taps_nchw, conv_taps_c4, conv_taps_c16, winograd_panels, conv_chain,
        conv_chain_pair,
        dense_panels, dense_panels_narrow, conv_transpose_panels, conv_panels_half, conv_taps_c32,
        dense_panels_half, winograd_panels_half, conv_sparse, dense_sparse, *int8_weights.ALL,
    )
}  # fmt: skip
