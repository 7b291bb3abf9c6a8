"""One HTML file, with no network and no server, in which a person points at a position and sees its map."""

import base64
import json
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps

from nl_detectron.inspect import Field, Observation

from .pictures import count_outstanding, strongest
from .queries import Query, label_of
from .words import averages, in_words

MAP_BYTES = 16 * 2**20  # what the maps of one field may take: a byte for each position i and j
LONGEST_SIDE = 1600  # of the image in the page, in pixels


def attention_page(
    observation: Observation, title: str, classes: Sequence[str] = (), opening: Query | None = None
) -> str:
    """The page for all fields of an observation.

    Weights are rounded to 1/255 of the largest one of their row, 1/127 where there are signs. Where all
    positions i of a large map would not fit into MAP_BYTES, it has every second, third, ... of them.

    Args:
        classes: their names; numbers where there are none.
        opening: what the page shows first; without it, the middle of the image or of the first field.
    """
    fields = observation.fields
    index = [field is opening.field for field in fields].index(True) if opening else None
    content = {
        "title": title,
        "image": _jpeg(observation.image),
        "width": observation.image.shape[1],
        "height": observation.image.shape[0],
        "detections": _detections(observation, classes),
        "blocks": [[name, _option(name, *figures)] for name, figures in averages(fields).items()],
        "fields": [_field(field) for field in fields],
        "opening": opening and [index, opening.x, opening.y],
        "colours": {"plain": _colours("YlOrRd"), "signed": _colours("RdBu_r")},
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    # Within a script, "</" could end it, and "<!--" begin a comment.
    return template.replace("/*CONTENT*/null", json.dumps(content).replace("<", "\\u003c"))


def _option(name: str, query_dependence: float, change: float) -> str:
    short = ".".join(name.split(".")[-2:])
    return f"{short} - query dependence {query_dependence:.2f}, changes x by {100 * change:.1f} %"


def _field(field: Field) -> dict[str, object]:
    grid = field.grid
    down, across = grid.pooled
    m = (grid.rows // down) * (grid.columns // across)
    step = math.ceil(math.sqrt(grid.rows * grid.columns * m / MAP_BYTES))
    rows, columns = range(step // 2, grid.rows, step), range(step // 2, grid.columns, step)
    rows, columns = rows or range(1), columns or range(1)
    weights = field.rows([row * grid.columns + column for row in rows for column in columns])
    maps, scales = _rounded(weights.reshape(len(weights), -1), field.is_signed)
    return {
        "name": field.name,
        "detection": field.detection,
        "signed": field.is_signed,
        "about": in_words(field.query_dependence, field.change),
        "left": grid.left,
        "top": grid.top,
        "cell": [grid.width, grid.height],
        "size": [grid.rows, grid.columns],
        "pooled": grid.pooled,
        "step": step,
        "asked": [len(rows), len(columns)],
        "maps": _base64(maps),
        "scales": _base64(scales),
        # In bytes many weights are the same.
        "strongest": _base64(np.array([strongest(row) for row in weights], "<u4")),
        "outstanding": _base64(np.array([count_outstanding(row) for row in weights], np.uint8)),
    }


def _rounded(weights: np.ndarray, is_signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K, M) in whole numbers of a byte, and what 1 is in each of them (K,)."""
    dtype, largest = (np.int8, 127) if is_signed else (np.uint8, 255)
    scales = (np.abs(weights).max(1) / largest).astype("<f4")
    safe = np.where(scales > 0, scales, 1)[:, None]
    return np.clip(np.rint(weights / safe), -largest, largest).astype(dtype), scales


def _detections(observation: Observation, classes: Sequence[str]) -> list[dict[str, object]]:
    detections, instances = [], observation.instances
    for k in range(0 if instances is None else len(instances)):
        label = f"{k + 1} {label_of(instances, k, classes)} {instances.scores[k].item():.0%}"
        detections.append({"box": instances.pred_boxes.tensor[k].tolist(), "label": label})
    return detections


def _jpeg(image: np.ndarray) -> str:
    scale = min(1, LONGEST_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return "data:image/jpeg;base64," + _base64(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def _colours(name: str) -> list[list[int]]:
    return colormaps[name](np.arange(256), bytes=True)[:, :3].tolist()


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
