"""Kinetics and Charades in their own folder layouts, as records for Detectron2's loaders."""

import csv
from pathlib import Path

from torchvision.datasets.folder import find_classes, make_dataset

from nl_detectron.errors import UserError

EXTENSIONS = (".mp4", ".avi", ".mkv", ".webm", ".mov")
CHARADES_CLASSES = 157


def kinetics(root: str, split: str) -> list[dict]:
    """The videos of Kinetics, or of any folder with one folder for each class: root/split/class/video.mp4.

    Returns:
        Records with `file_name` and `label`, the number of the class among the folders of root/train, in
        alphabetical order.

    Raises:
        UserError: if there are none, or a class that root/train lacks.
    """
    folder, train = Path(root, split), Path(root, "train")
    try:
        classes = [name for name in find_classes(train)[0] if not name.startswith(".")]
        numbers = {name: number for number, name in enumerate(classes)}
        found = [name for name in find_classes(folder)[0] if not name.startswith(".")]
        if unknown := [name for name in found if name not in numbers]:
            raise UserError(f"{folder} has {unknown[0]}, which {train} lacks: the classes are its folders.")
        videos = make_dataset(str(folder), numbers, EXTENSIONS, allow_empty=True)
    except FileNotFoundError as error:
        raise UserError(f"{folder} and {train} need a folder for each class, with videos: {error}.") from None
    if not videos:
        raise UserError(f"{folder} has no video: none ends in {', '.join(EXTENSIONS)}.")
    return [{"file_name": name, "label": label} for name, label in videos]


def charades(root: str, split: str, folder: str = "Charades_v1_480") -> list[dict]:
    """The videos of Charades: root/Charades_v1_{train,test}.csv, and root/`folder`/ID.mp4.

    Returns:
        Records with `file_name` and `label`, the sorted numbers of all actions in the video.

    Raises:
        UserError: for a missing file, or one that is none of Charades'.
    """
    file = Path(root, f"Charades_v1_{split}.csv")
    try:
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        records = [
            {"file_name": str(Path(root, folder, f"{row['id']}.mp4")), "label": _actions(row["actions"])}
            for row in rows
        ]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is no list of Charades: {type(error).__name__}: {error}.") from error
    if not records:
        raise UserError(f"{file} lists no video.")
    return records


def _actions(text: str) -> list[int]:
    """The classes of "c092 11.90 21.20;c147 0.00 12.60", each once."""
    return sorted({int(action.split()[0].removeprefix("c")) for action in text.split(";") if action})
