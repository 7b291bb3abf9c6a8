#!/usr/bin/env python
"""Train and evaluate on the far and near pictures, with the flags of the repository's train_net.py."""

from far_context.pictures import register_pictures
from nl_detectron_shapes import datasets_root

from nl_detectron.engine import main

# At import, as the processes of Detectron2's launcher import this file again.
register_pictures(datasets_root())

if __name__ == "__main__":
    main()
