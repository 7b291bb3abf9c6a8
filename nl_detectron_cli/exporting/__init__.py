"""The parts of tools/export.py: TorchScript, ONNX, and the check of what was written."""
