"""Runs by itself, with LiteRT's host package: python tflite_ranges.py MODEL SAMPLES.npz prints, for
every tensor of a float model, the least and the greatest value over the samples, as JSON. Samples
are arrays i_k: sample i, input k."""

import json
import sys

import numpy as np


def main() -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        sys.argv[1],
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    places = [d["index"] for d in interpreter.get_input_details()]
    tensors = [d["index"] for d in interpreter.get_tensor_details() if d["dtype"] == np.float32]
    ranges: dict[int, tuple[float, float]] = {}
    with np.load(sys.argv[2]) as samples:
        for i in range(len(samples.files) // len(places)):
            for k, place in enumerate(places):
                interpreter.set_tensor(place, samples[f"{i}_{k}"])
            interpreter.invoke()
            for t in tensors:
                value = interpreter.get_tensor(t)
                low, high = ranges.get(t, (np.inf, -np.inf))
                ranges[t] = (min(low, float(value.min())), max(high, float(value.max())))
    print(json.dumps(ranges))


if __name__ == "__main__":
    main()
