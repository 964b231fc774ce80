"""Ahead-of-time compilation: a decoder is exported to ONNX and built into a TensorRT plan, described by a sidecar."""
