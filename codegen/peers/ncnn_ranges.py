"""Runs by itself, with ncnn's host package: python ncnn_ranges.py PARAM WEIGHTS SAMPLES.npz BLOBS
prints the largest magnitude of each blob over the samples, as JSON. Samples are arrays i_k: sample
i, input k."""

import json
import sys

import numpy as np


def main() -> None:
    import ncnn

    param, weights, file, *blobs = sys.argv[1:]
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(param)
    net.load_model(weights)
    largest = dict.fromkeys(blobs, 0.0)
    with np.load(file) as samples:
        inputs = 1 + max(int(name.split("_")[1]) for name in samples.files)
        for i in range(len(samples.files) // inputs):
            extractor = net.create_extractor()
            extractor.set_light_mode(False)  # which would forget blobs that were read
            arrays = [samples[f"{i}_{k}"] for k in range(inputs)]
            mats = [ncnn.Mat(a[0] if a.ndim > 1 else a) for a in arrays]
            for k, mat in enumerate(mats):
                extractor.input(f"in{k}", mat)
            for blob in blobs:
                failed, value = extractor.extract(blob)
                assert not failed, blob
                largest[blob] = max(largest[blob], float(np.abs(np.asarray(value)).max()))
    print(json.dumps(largest))


if __name__ == "__main__":
    main()
