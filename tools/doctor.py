#!/usr/bin/env python
"""Say what a training would make of a COCO file: what is mended, what is refused, and how its objects look.

    python tools/doctor.py birds train.json images
    python tools/doctor.py birds train.json images --decode-all --output mended.json --pictures looks

The file stays as it is. --output writes it as a training reads it. --pictures draws the objects of a few
images, evenly spread, as the loader has them. The exit code is 1 for a file that is refused.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.data.detection_utils import read_image
from tqdm import tqdm

from nl_detectron.data import Record, check_broken, register_coco, why_unreadable
from nl_detectron.engine import program_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write
from nl_detectron.inspect import LabelVisualizer


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("name", help="what the data set is to be called")
    parser.add_argument("json", type=Path, help="the COCO file")
    parser.add_argument("images", type=Path, help="the folder of its images")
    parser.add_argument("--decode-all", action="store_true", help="decode every image")
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the file as a training reads it")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="for images with their objects")
    parser.add_argument("--count", type=int, default=8, help="of pictures (default: %(default)s)")
    args = parser.parse_args()
    with one_line_errors():
        if args.count < 1:
            raise UserError(f"--count must be at least 1; got {args.count}.")
        if args.output and args.output.exists():
            raise UserError(f"--output {args.output} exists. Give a new file.")
        register_coco(args.name, str(args.json), str(args.images), is_quiet=True)
        metadata, records = MetadataCatalog.get(args.name), DatasetCatalog.get(args.name)
        print(describe(metadata, records))
        if args.output:
            with atomic_write(args.output) as unfinished:
                shutil.copyfile(metadata.json_file, unfinished)
        if args.decode_all:
            progress = tqdm(records, "decoding", unit="image")
            check_broken([reason for record in progress if (reason := why_unreadable(record))], 0)
            print("All images can be decoded.")
        if args.pictures:
            draw(metadata, records, args.pictures, args.count)


def describe(metadata: Metadata, records: Sequence[Record]) -> str:
    """Counts of images, objects, classes, masks and crowds; keypoints; and what was mended."""
    objects = [object_ for record in records for object_ in record.get("annotations", ())]
    counts = Counter(metadata.thing_classes[object_["category_id"]] for object_ in objects)
    empty = sum(not record.get("annotations") for record in records)
    masks = sum("segmentation" in object_ for object_ in objects)
    crowds = sum(object_.get("iscrowd", 0) for object_ in objects)
    keypoints = ", ".join(metadata.get("keypoint_names", [])) or "none"
    lines = [f"{metadata.name}: {len(records)} images, {empty} without objects; {len(objects)} objects"]
    lines += [f"  {counts[name]:8} {name}" for name in metadata.thing_classes]
    lines += [f"masks: {masks}; crowds: {crowds}; keypoints: {keypoints}"]
    return "\n".join(
        [*lines, f"mended:\n{metadata.mended}" if metadata.mended else "Nothing had to be mended."]
    )


def draw(metadata: Metadata, records: Sequence[Record], folder: Path, count: int) -> None:
    """Draw the objects of `count` images into files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    count = min(count, len(records))
    for record in (records[k * len(records) // count] for k in range(count)):
        if reason := why_unreadable(record):
            print(f"not drawn: {reason}")
            continue
        image = read_image(record["file_name"], format="RGB")
        visualizer = LabelVisualizer(image, metadata)
        id_ = str(record["image_id"]).replace("/", "_")
        path = folder / f"{Path(record['file_name']).stem}_{id_}.png"
        drawn = visualizer.draw_dataset_dict(record).get_image()[:, :, ::-1]
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(cv2.imencode(path.suffix, drawn)[1])


if __name__ == "__main__":
    main()
