"""ncnn on one of its own benchmark networks, with empty weights, as its benchncnn does:
ncnn_param.py RUNS NETWORK.param"""

import sys

import ncnn
from board import measure

net = ncnn.Net()
net.opt.num_threads = 1
# Memory of one run serves the next, without the kernel; net.opt keeps no reference of its own.
blobs, workspace = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
net.opt.blob_allocator, net.opt.workspace_allocator = blobs, workspace
net.load_param(sys.argv[2])
net.load_model(ncnn.DataReaderFromEmpty())

with open(sys.argv[2]) as f:
    fields = next(line.split() for line in f if line.startswith("Input "))
hint = next(x for x in fields if x.startswith("-23330="))  # 4,dimensions,width,height,channels
shape = [int(x) for x in hint.partition("=")[2].split(",")[1:]]
image = ncnn.Mat(*shape[1 : 1 + shape[0]])
image.fill(0.01)


def run():
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], image)
    failed, _ = extractor.extract(net.output_names()[0])
    assert not failed


measure(run, int(sys.argv[1]))
