"""Calibration for int8: the range of every activation over a user's data, and what prepares
weights for quantisation. Import the modules: `record` and `weights` stand early in the order of
imports, what runs the network late."""
