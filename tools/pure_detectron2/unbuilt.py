"""Stands in for the compiled operators, which this pure-Python build of Detectron2 lacks."""


def __getattr__(name: str) -> None:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"detectron2._C.{name} (rotated boxes, deformable convolution on a GPU) is not part of this "
        "pure-Python build of Detectron2 0.5. Install upstream Detectron2 to use it."
    )
