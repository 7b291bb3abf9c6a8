#!/usr/bin/env python
"""Export a trained model to ONNX or TorchScript: `-h` has examples."""

from nl_detectron_cli.export import main

if __name__ == "__main__":
    main()
