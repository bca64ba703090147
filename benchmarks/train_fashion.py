"""Trains examples/models/fashion_dscnn.onnx: `python -m benchmarks.train_fashion --out FILE`.

Depthwise separable convolutions as in MLPerf Tiny's keyword spotter, for the 28x28 pictures of
Fashion-MNIST; needs torch. One seed gives the same network on one machine and version of torch.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from codegen.errors import CodegenError
from codegen.models.data import load
from codegen.models.fetch import write_atomically
from codegen.models.onnx_writer import OnnxWriter

try:
    import torch
    from torch import nn
except ImportError:
    sys.exit("error: benchmarks.train_fashion: package 'torch' is not installed; training needs "
             "it; run `pip install torch`")  # fmt: skip

CLASSES, SIDE = 10, 28
WHITE = 255.0  # inputs are grey 0..255; the first layer's weights take them to 0..1
FIRST = 32  # outputs of the 3x3 convolution that the network begins with
# Inputs, outputs and stride of the blocks: 3x3 depthwise, then pointwise.
BLOCKS = ((32, 32, 1), (32, 48, 1), (48, 64, 2), (64, 64, 1))
BATCH, RATE, DECAY, SHIFT = 128, 0.01, 0.01, 2


def main() -> None:
    """Train, export, and print top-1 on the test pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_fashion", description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the ONNX file")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        seen, unseen = load("fashion_mnist_train"), load("fashion_mnist")
    except CodegenError as e:
        sys.exit(f"error: {e}")
    torch.set_num_threads(1)  # sums in one order; layers this small gain little from more
    torch.manual_seed(options.seed)
    net = network()
    train(net, *map(torch.from_numpy, seen), options.epochs)
    write_atomically(options.out, export(net).SerializeToString(deterministic=True))
    print(f"top-1 {top1(net, *map(torch.from_numpy, unseen)):.2%}: {options.out}")


def network() -> nn.Sequential:
    """Convolutions, each with its batch normalisation and ReLU, then the mean of all pixels and a
    dense layer."""
    layers = _conv(1, FIRST, 3, 2)
    for inputs, outputs, stride in BLOCKS:
        layers += _conv(inputs, inputs, 3, stride, inputs) + _conv(inputs, outputs, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(BLOCKS[-1][1], CLASSES))  # fmt: skip


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def train(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    """AdamW with one cycle of learning rates, on shifted and mirrored pictures."""
    net.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, epochs=epochs, steps_per_epoch=-(-len(labels) // BATCH)
    )
    start = time.monotonic()
    for epoch in range(epochs):
        net.train()
        losses = []
        for picked in torch.randperm(len(labels)).split(BATCH):
            scores = net(_varied(images[picked]) / WHITE)
            loss = nn.functional.cross_entropy(scores, labels[picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rates.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f} ({time.monotonic() - start:.0f} s)",
              flush=True)  # fmt: skip


def _varied(images: torch.Tensor) -> torch.Tensor:
    """Each shifted by up to SHIFT pixels each way, half of them mirrored."""
    n = len(images)
    padded = nn.functional.pad(images, [SHIFT] * 4)
    top, left = torch.randint(2 * SHIFT + 1, (2, n, 1))
    line = torch.arange(SIDE)
    columns = torch.where(torch.rand(n, 1) < 0.5, line, line.flip(0)) + left
    rows = (line + top)[:, :, None]
    return padded[torch.arange(n)[:, None, None], 0, rows, columns[:, None]][:, None]


@torch.no_grad()
def top1(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of the pictures that the network gets right."""
    net.eval()
    hits = [(net(x / WHITE).argmax(1) == y).sum().item()
            for x, y in zip(images.split(1000), labels.split(1000), strict=True)]  # fmt: skip
    return sum(hits) / len(labels)


def export(net: nn.Sequential):
    """The ONNX model, batch normalisation and the scale of the input folded into the
    convolutions."""
    writer, x, scale = OnnxWriter(), "input", np.float64(1 / WHITE)
    for i, layer in enumerate(net):
        if isinstance(layer, nn.Conv2d):
            x, scale = _export_conv(writer, x, layer, net[i + 1], scale), np.float64(1)
    x = writer.op("GlobalAveragePool", [x], "mean")
    x = writer.op("Flatten", [x], "flat")
    dense = [writer.weight(net[-1].weight.detach().numpy(), "dense.weight"),
             writer.weight(net[-1].bias.detach().numpy(), "dense.bias")]  # fmt: skip
    output = writer.op("Gemm", [x, *dense], "scores", transB=1)
    return writer.model("fashion_dscnn", {"input": (1, 1, SIDE, SIDE)}, {output: (1, CLASSES)})


def _export_conv(writer: OnnxWriter, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d, scale) -> str:
    gain, shift, mean, variance, weight = (
        t.detach().double().numpy()
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var, conv.weight)
    )
    gain = gain / np.sqrt(variance + norm.eps)
    name = writer.unique("depthwise" if conv.groups > 1 else "conv")
    constants = [writer.weight(weight * (scale * gain)[:, None, None, None], f"{name}.weight"),
                 writer.weight(shift - mean * gain, f"{name}.bias")]  # fmt: skip
    y = writer.op("Conv", [x, *constants], f"{name}.sum", kernel_shape=conv.kernel_size,
                  strides=conv.stride, pads=[*conv.padding] * 2, group=conv.groups)  # fmt: skip
    return writer.op("Relu", [y], f"{name}.relu")


if __name__ == "__main__":
    main()
