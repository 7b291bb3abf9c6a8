"""Far context: trainings on pictures whose labels only a far disc tells.

Importing it registers the controls with Detectron2.
"""

from . import controls  # noqa: F401  registers the backbones
