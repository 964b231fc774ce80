"""Ahead-of-time engines: exported to ONNX, built by TensorRT, and described by what lies beside the plan."""
