#!/usr/bin/env python
"""Count parameters, multiply-adds and activations of configs: `-h` has examples."""

from nl_detectron_cli.analyze import main

if __name__ == "__main__":
    main()
