"""The search against chance, greedy and rules, over episodes and seeds: `python -m
benchmarks.search`."""
