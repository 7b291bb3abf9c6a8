"""Draw what a model detects into images, a video or what a camera sees: boxes, masks, keypoints, and panoptic
and semantic segmentations. Or write it as COCO's results.

    python tools/demo.py --config-file CONFIG --input FOLDER 'more/*.png' --output RESULTS \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --input FOLDER --json found.json --batch 4 \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --video-input video.mp4 --output result.mp4 \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --webcam MODEL.WEIGHTS model_final.pth

Results go into the folder --output under the names of the images; the result of one image may be a file, as
result.jpg. No image is overwritten; older results are. Images that cannot be read are named and skipped, and
the exit code is 1 then. Small images are drawn enlarged; see --scale. Classes are shown by the names in the
config (MODEL.CLASS_NAMES), the checkpoint or the first data set of DATASETS.TEST, or else by their numbers.

--json found.json writes the detections as COCO's results, and their images and categories into
found.images.json: COCO("found.images.json").loadRes("found.json") loads them. An older file is replaced.
  scores       above the config's MODEL.ROI_HEADS.SCORE_THRESH_TEST (MODEL.RETINANET.SCORE_THRESH_TEST), as
               train_net.py --eval-only has them: AP is the same; --confidence-threshold is for pictures
  image_id     the number at the end of the file name, as in 000000000139.jpg; if not all images have
               different ones, their position, from 1; the number of a video's frame, from 0
  category_id  that of the first data set of DATASETS.TEST, or if its file is not there, the class, from 0
After an interruption, the same command goes on from found.json.part; a video with --output starts anew.
"""

import argparse
from pathlib import Path

from .arguments import add_detection_flags, tool_parser


def main() -> None:
    args = _parser().parse_args()
    from nl_detectron_cli.detecting.program import run  # after parsing: see __init__

    run(args)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    text = "images, folders of images, patterns in quotes"
    source.add_argument("--input", nargs="+", metavar="FILES", help=text)
    source.add_argument("--video-input", type=Path, metavar="FILE", help="a video that OpenCV reads")
    source.add_argument("--webcam", action="store_true", help="the first camera, shown in a window")
    parser.add_argument("--output", type=Path, help="a folder, a file for one image, or .mp4 for a video")
    text = "draw S times as large (default: 1, or 640 pixels or so if the longer side is below 400)"
    parser.add_argument("--scale", type=float, metavar="S", help=text)
    text = "write detections there, instead of pictures or (with --output) beside them"
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)
    text = "a COCO file, such as the truth, whose ids --json takes: of images of the same name, of categories"
    parser.add_argument("--json-ids", type=Path, metavar="FILE", help=text)
    text = "up to N images of one size, or frames, in a forward pass (default: 1); results differ by rounding"
    parser.add_argument("--batch", type=int, default=1, metavar="N", help=text)
    add_detection_flags(parser)
    return parser
