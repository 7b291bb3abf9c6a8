"""What tools/export.py does: models, TorchScript, ONNX, and the check of what was written."""
