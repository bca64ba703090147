"""ncnn's int8 form: which layers get which scales, and the bytes of their weights."""

import numpy as np
import pytest

from codegen.peers.base import PeerError
from codegen.peers.ncnn_int8 import calibrated, quantise, read_param

# A strided convolution that only a depthwise one reads; that one is split for a convolution and an
# addition; a linear layer.
PARAM = """7767517
7 8
Input in0 0 1 in0
Convolution first 1 1 in0 a 0=2 1=3 3=2 5=1 6=54 9=1
ConvolutionDepthWise deep 1 1 a b 0=2 1=3 4=1 5=0 6=18 7=2 -23310=1,0.5
Split split 1 2 b c d
Convolution wino 1 1 c e 0=2 1=3 11=3 4=1 5=1 6=36
BinaryOp add 2 1 d e f 0=0
InnerProduct linear 1 1 f out0 0=3 1=1 2=6
"""
LARGEST = {"in0": 2.0, "a": 4.0, "c": 0.5, "f": 0.0}


def _weights() -> tuple[dict[str, np.ndarray], bytes]:
    """Of PARAM's layers, and the file."""
    rng = np.random.default_rng(0)
    sizes = {"first": (54, 2), "deep": (18, 0), "wino": (36, 2), "linear": (6, 3)}
    arrays = {k: rng.standard_normal(w + b).astype(np.float32) for k, (w, b) in sizes.items()}
    return arrays, b"".join(bytes(4) + a.tobytes() for a in arrays.values())


def test_blobs_to_calibrate_are_the_inputs_of_weighted_layers():
    assert calibrated(read_param(PARAM)) == ("in0", "a", "c", "f")


def test_layers_get_their_int8_term():
    param, _ = quantise(PARAM, _weights()[1], LARGEST)
    layers = {x.name: x for x in read_param(param.decode())}
    terms = {k: x.number(8) for k, x in layers.items()}
    assert terms == {"in0": 0, "first": 102, "deep": 1, "split": 0, "wino": 2, "add": 0,
                     "linear": 2}  # fmt: skip
    assert layers["deep"].params[-23310] == "1,0.5"
    assert param.decode().splitlines()[:3] == PARAM.splitlines()[:3]


def test_values_hand_on_8_bits_through_a_split_that_only_convolutions_read():
    text = PARAM.replace("BinaryOp add 2 1 d e f 0=0", "ConvolutionDepthWise more 1 1 d f 0=2 1=1 "
                         "6=2 7=2")  # fmt: skip
    data = _weights()[1]
    at = len(data) - 40  # before the linear layer
    data = data[:at] + bytes(4) + np.float32([1, 1]).tobytes() + data[at:]
    param, _ = quantise(text, data, {**LARGEST, "d": 0.5})
    terms = {x.name: x.number(8) for x in read_param(param.decode())}
    assert (terms["deep"], terms["wino"], terms["more"]) == (101, 2, 1)


def test_weights_scales_and_biases_lie_where_ncnn_reads_them():
    arrays, data = _weights()
    _, out = quantise(PARAM, data, LARGEST)
    # name: rows, weights, bits' largest value, scales of the input and of what is handed on
    wanted = {"first": (2, 54, 127, [127 / 2, 127 / 4]), "deep": (2, 18, 127, [127 / 4]),
              "wino": (2, 36, 31, [127 / 0.5]), "linear": (3, 6, 127, [1.0])}  # fmt: skip
    at = 0
    for name, (rows, size, most, after) in wanted.items():
        assert int.from_bytes(out[at : at + 4], "little") == 0x000D4B38
        w, bias = arrays[name][:size].reshape(rows, -1), arrays[name][size:]
        stored = np.frombuffer(out, np.int8, size, at + 4).reshape(rows, -1)
        at += 4 + size + -size % 4
        floats = np.frombuffer(out, np.float32, bias.size + rows + len(after), at)
        at += floats.nbytes
        scales = floats[bias.size : bias.size + rows]
        assert np.array_equal(floats[: bias.size], bias)
        assert np.abs(stored).max() == most
        assert np.abs(stored / scales[:, None] - w).max() <= 0.5001 / scales.min()
        assert floats[bias.size + rows :].tolist() == pytest.approx(after)
    assert at == len(out)


def test_a_channel_of_zeros_stays_zero():
    param = "7767517\n1 2\nInnerProduct l 1 1 in0 out0 0=2 1=0 2=4\n"
    _, out = quantise(param, bytes(4) + np.float32([0, 0, 1, -2]).tobytes(), {"in0": 1.0})
    assert np.frombuffer(out, np.int8, 4, 4).tolist() == [0, 0, 64, -127]
    assert np.frombuffer(out, np.float32, 3, 8).tolist() == [0.0, 63.5, 127.0]


def test_a_convolution_whose_weights_are_computed_stays_float():
    param = "7767517\n1 3\nConvolution c 2 1 in0 in1 out0 0=2 1=3 6=36 19=1\n"
    text, out = quantise(param, b"", {})
    assert out == b""
    assert read_param(text.decode())[0].number(8) == 0


@pytest.mark.parametrize(
    ("param", "change", "said"),
    [
        ("x\n0 0\n", lambda d: d, "not a text param file"),
        (PARAM, lambda d: b"\x47\x6b\x30\x01" + d[4:], "weights of first .* not plain float32"),
        (PARAM, lambda d: d[:-4], "weights of linear .* not plain float32"),
        (PARAM, lambda d: d + bytes(4), "form is not known"),
    ],
)
def test_models_of_another_form_are_refused(param, change, said):
    with pytest.raises(PeerError, match=said):
        quantise(param, change(_weights()[1]), LARGEST)
