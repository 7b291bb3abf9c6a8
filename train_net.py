#!/usr/bin/env python
"""Train and evaluate: `train_net.py --help` has examples."""

from nl_detectron_cli.train_net import main

if __name__ == "__main__":
    main()
