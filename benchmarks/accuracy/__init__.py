"""What int8 costs and brings: `python -m benchmarks.accuracy`."""
