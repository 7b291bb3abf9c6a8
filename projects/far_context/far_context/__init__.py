"""Far context: trainings on pictures whose labels only a far disc tells.

Importing it registers the residual-block control with Detectron2.
"""

from . import deeper  # noqa: F401  registers the backbone
