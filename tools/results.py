#!/usr/bin/env python
"""The table of finished trainings, each beside its baseline: `-h` has examples."""

from nl_detectron_cli.results import main

if __name__ == "__main__":
    main()
