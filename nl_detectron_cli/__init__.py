"""The programs that `nl-detectron` and the scripts run.

Modules of this folder, but `counting`, import the standard library only, and parse the command line; what
computes is imported after that, as PyTorch and Detectron2 take seconds: -h and mistakes in flags are
answered at once.
"""
