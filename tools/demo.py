#!/usr/bin/env python
"""Draw what a model detects into images or a video, or write it as JSON: `-h` has examples."""

from nl_detectron_cli.demo import main

if __name__ == "__main__":
    main()
