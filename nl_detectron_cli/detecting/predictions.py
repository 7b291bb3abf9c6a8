"""What a model detects as JSON: COCO's results, written incrementally; an interrupted run can be resumed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write


def check_json(path: Path) -> None:
    """Reject a file that is not one of predictions, which those would replace."""
    if path.suffix != ".json" or path.is_dir():
        raise UserError(f"--json {str(path)!r} is not the name of a .json file.")
    if path.exists():
        with path.open("rb") as file:
            if file.read(1) != b"[":
                what = "holds something else than predictions"
                raise UserError(f"--json {str(path)!r} {what}. Give another name.")


def describe(cfg: CfgNode, source: str | Path, pictures: Path | None, least: float) -> dict[str, object]:
    """What predictions are of: the config, the file of the weights, the input, and where pictures go.

    `least` is the score that detections in pictures exceed.
    """
    weights = Path(cfg.MODEL.WEIGHTS)
    state = weights.stat() if weights.is_file() else None
    return {
        "config": cfg.dump(),
        "weights": [os.path.abspath(weights), state.st_size, state.st_mtime_ns] if state else None,
        "input": os.path.abspath(source),
        "pictures": [os.path.abspath(pictures), least] if pictures else None,
    }


class Predictions:
    """COCO's results of many images, for `with`.

    Until the end they are in `path`.part: a line of what they are made from, then a line for each batch. The
    end writes `path`, the list that COCO.loadRes takes, and beside it .images.json, the images and
    categories. Ctrl-C leaves the part.

    Attributes:
        done: the ids of the images that the part has, by file name.
    """

    def __init__(
        self,
        path: Path,
        categories: Sequence[Mapping[str, object]],
        made_from: Mapping[str, object],
        ids: Mapping[str, int] | None = None,
        batch: int = 1,
        resumes: bool = True,
    ) -> None:
        """
        Args:
            categories: the id and name of each class, in the order of the classes.
            made_from: as `describe` gives it. A part of something else is refused.
            ids: of all images, by file name. A part with others is refused.
            batch: how many images of one size go through the model together. A part goes on after its last
                batch, so that the results are those of a run without an interruption.
            resumes: whether a part goes on, or is replaced.

        Raises:
            UserError: if the part is refused.
        """
        self._path, self._categories, self._batch = path, categories, batch
        self._part = path.with_name(f"{path.name}.part")
        self._header = (json.dumps({**made_from, "categories": categories}) + "\n").encode()
        self._waiting: list[dict[str, object]] = []  # the images of a batch, with their results
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done = self._go_on(ids) if resumes and self._part.exists() else {}
        if not self.done:
            self._part.write_bytes(self._header)

    def _go_on(self, ids: Mapping[str, int] | None) -> dict[str, int]:
        """The images of the part. Removes a line whose write was cut off, and all after it."""
        done: dict[str, int] = {}
        with self._part.open("r+b") as file:
            header = file.readline()
            is_same = header == self._header or not header.endswith(b"\n")
            end = file.tell()
            for line in file:
                try:
                    entries = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                done |= {entry["image"]["file_name"]: entry["image"]["id"] for entry in entries}
                end = file.tell()
            if not is_same or (ids is not None and not ids.items() >= done.items()):
                what = "is of another model, config or input"
                remedy = "Remove it to start anew, or give another --json"
                raise UserError(f"{str(self._part)!r} {what}. {remedy}.")
            file.truncate(end)
        return done

    def add(self, name: str, image_id: int, image: np.ndarray, output: Mapping[str, object]) -> None:
        """Add what is detected in an image (H, W, 3)."""
        height, width = image.shape[:2]
        entry = {"id": image_id, "file_name": name, "height": height, "width": width}
        sizes = {(each["image"]["height"], each["image"]["width"]) for each in self._waiting}
        if len(self._waiting) == self._batch or sizes - {(height, width)}:
            self._flush()  # not sooner: the last picture of a batch is written after this call
        instances = output["instances"].to("cpu")
        if instances.has("pred_keypoints"):
            instances.pred_keypoints = instances.pred_keypoints.clone()  # Detectron2 moves them in place
        results = instances_to_coco_json(instances, image_id)
        for result in results:
            result["category_id"] = self._categories[result["category_id"]]["id"]
        self._waiting.append({"image": entry, "results": results})

    def __enter__(self) -> "Predictions":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or isinstance(error, UserError):  # which names images that were skipped
            self._finish()

    def _flush(self) -> None:
        if self._waiting:
            with self._part.open("a") as file:
                file.write(json.dumps(self._waiting) + "\n")
        self._waiting = []

    def _finish(self) -> None:
        self._flush()
        images, count = [], 0
        with self._part.open() as lines, atomic_write(self._path) as unfinished, unfinished.open("w") as file:
            next(lines)
            file.write("[")
            for entry in (entry for line in lines for entry in json.loads(line)):
                images.append(entry["image"])
                for result in entry["results"]:
                    file.write((",\n" if count else "\n") + json.dumps(result))
                    count += 1
            file.write("\n]\n")
        with atomic_write(self._path.with_suffix(".images.json")) as unfinished:
            unfinished.write_text(json.dumps({"images": images, "categories": self._categories}))
        self._part.unlink()
        print(f"detections written to {str(self._path)!r}: {count} in {len(images)} images")
