#!/usr/bin/env python
"""See what positions of an image attend to, in pictures and a page: see projects/attention."""

from nl_detectron_attention.command import main

if __name__ == "__main__":
    main()
