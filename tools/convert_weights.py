#!/usr/bin/env python
"""Move non-local blocks between checkpoints of Detectron2 and of others: see projects/interop."""

from nl_detectron_interop.convert import main

if __name__ == "__main__":
    main()
