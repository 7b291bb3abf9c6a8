#!/usr/bin/env python
"""Train and evaluate: `train_net.py --help` has examples."""

import nl_detectron_shapes  # noqa: F401  (registers shapes_train and the like)

from nl_detectron.engine import main

if __name__ == "__main__":
    main()
