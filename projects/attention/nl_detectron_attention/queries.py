"""The positions that a person asks for: a point of the image, a detected box, a detected keypoint."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from detectron2.structures import Instances

from nl_detectron.inspect import Field, Observation


class Query(NamedTuple):
    """The position i of a field at (x, y) of the image. Those of a group, like keypoints, belong together."""

    group: str
    part: str
    x: float
    y: float
    field: Field

    @property
    def label(self) -> str:
        return f"{self.group} {self.part}".rstrip()

    @property
    def position(self) -> int:
        return self.field.grid.position_at(self.x, self.y)

    def weights(self) -> np.ndarray:
        """Its row (H', W')."""
        return self.field.rows([self.position])[0]


def at_point(observation: Observation, x: int, y: int) -> list[Query]:
    """The queries at the middle of pixel (x, y): one for each field that has it."""
    queries = []
    for field in observation.fields:
        within = "" if field.detection is None else f" in detection {field.detection + 1}"
        queries.append(Query(f"point {x},{y}{within}", "", x + 0.5, y + 0.5, field))
    return [query for query in queries if query.position is not None]


def of_detection(
    observation: Observation, detection: int, classes: Sequence[str] = (), keypoints: Sequence[str] = ()
) -> list[Query]:
    """The queries of one detection: at its keypoints if it has any, else at the middle of its box.

    `classes` and `keypoints` are names; without them there are numbers.
    """
    instances = observation.instances
    points = _points(instances, detection, keypoints)
    name = f"{label_of(instances, detection, classes)} {detection + 1}"
    fields = [field for field in observation.fields if field.detection in (None, detection)]
    queries = [Query(name, part, x, y, field) for field in fields for part, (x, y) in points.items()]
    return [query for query in queries if query.position is not None]


def label_of(instances: Instances, detection: int, classes: Sequence[str] = ()) -> str:
    """The name of a detection's class, or "class" and its number."""
    category = int(instances.pred_classes[detection])
    return classes[category] if category < len(classes) else f"class {category}"


def _points(instances: Instances, detection: int, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    if not instances.has("pred_keypoints"):
        left, top, right, bottom = instances.pred_boxes.tensor[detection].tolist()
        return {"": ((left + right) / 2, (top + bottom) / 2)}
    points = instances.pred_keypoints[detection, :, :2].tolist()
    names = names if len(names) == len(points) else [f"keypoint {k}" for k in range(len(points))]
    return {name: (x, y) for name, (x, y) in zip(names, points, strict=True)}
