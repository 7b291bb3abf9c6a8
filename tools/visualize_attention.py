#!/usr/bin/env python
"""See what positions of an image attend to, in pictures and a page: `-h` has examples."""

from nl_detectron_cli.visualize_attention import main

if __name__ == "__main__":
    main()
