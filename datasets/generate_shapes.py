#!/usr/bin/env python
"""Draw the shapes data set: `-h` has an example."""

from nl_detectron_shapes.__main__ import main

if __name__ == "__main__":
    main()
