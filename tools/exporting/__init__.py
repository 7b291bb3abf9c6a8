"""The parts of tools/export.py: models, TorchScript, ONNX, and the check of what was written."""
