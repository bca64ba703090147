"""codegen: compile a trained ONNX network into a small standalone C library for one Arm board."""

__version__ = "0.1.0"
