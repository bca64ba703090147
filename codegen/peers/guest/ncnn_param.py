"""ncnn on one of its own benchmark networks, with empty weights, as its benchncnn does:
ncnn_param.py RUNS NETWORK.param"""

import sys

import ncnn
from board import measure

net = ncnn.Net()
net.opt.num_threads = 1
net.load_param(sys.argv[2])
net.load_model(ncnn.DataReaderFromEmpty())

shape = next(
    [int(x) for x in field.partition("=")[2].split(",")[1:]]
    for line in open(sys.argv[2])
    if line.split()[0] == "Input"
    for field in line.split()
    if field.startswith("-23330=")
)
image = ncnn.Mat(*shape[1 : 1 + shape[0]])
image.fill(0.01)


def run():
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], image)
    failed, _ = extractor.extract(net.output_names()[0])
    assert not failed


measure(run, int(sys.argv[1]))
