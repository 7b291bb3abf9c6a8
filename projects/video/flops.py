#!/usr/bin/env python
"""Print the parameters and FLOPs of the paper's networks beside its own figures: see README.md."""

import argparse

from nl_video.costs import cost_table

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(cost_table())
