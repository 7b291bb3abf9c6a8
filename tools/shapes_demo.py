#!/usr/bin/env python
"""From nothing to box, mask and keypoint AP: draw the shapes, train two light models with non-local
blocks on them through train_net.py, evaluate both, draw what they detect.

    python tools/shapes_demo.py --output output/demo
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer
from tabulate import tabulate

from nl_detectron import get_cfg, model_zoo
from nl_detectron.data import register_shapes, write_shapes
from nl_detectron.errors import one_line_errors

TRAIN_NET = Path(__file__).resolve().parents[1] / "train_net.py"
MODELS = {
    "Mask R-CNN R18-FPN, 1 non-local block in res4": (
        "mask_rcnn",
        "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml",
    ),
    "Keypoint R-CNN R18-FPN, 4 non-local blocks in the head": (
        "keypoint_rcnn",
        "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml",
    ),
}
TASKS = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}


def train(config: str, datasets: Path, output: Path, options: list[str]) -> None:
    """Train and evaluate a shipped config on the shapes below `datasets`, in a process of its own."""
    command = [sys.executable, str(TRAIN_NET), "--config-file", model_zoo.get_config_file(config)]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets)}
    command += ["OUTPUT_DIR", str(output), "SEED", "1", *options]
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit(f"error: {' '.join(command)} failed, see above")


def evaluation(output: Path) -> dict[str, float]:
    """The metrics of the last evaluation in a finished output folder."""
    records = map(json.loads, (output / "metrics.json").read_text().splitlines())
    return [record for record in records if "bbox/AP" in record][-1]


def trained_config(output: Path) -> CfgNode:
    """The config of a finished output folder, with the weights it ended with."""
    cfg = get_cfg()
    cfg.merge_from_file(str(output / "config.yaml"))
    cfg.MODEL.WEIGHTS = str(output / "model_final.pth")
    return cfg


def detections(cfg: CfgNode, folder: Path, count: int = 4) -> np.ndarray:
    """What a model detects on the first images of its test set that have objects, side by side.

    Args:
        folder: where the pictures are also written, one PNG each.

    Returns:
        (H, W * count, 3) uint8, BGR.
    """
    predictor = DefaultPredictor(cfg)
    dataset = cfg.DATASETS.TEST[0]
    images = [record for record in DatasetCatalog.get(dataset) if len(record["annotations"])]
    pictures = []
    for record in images[:count]:
        image = cv2.imread(record["file_name"])
        instances = predictor(image)["instances"].to("cpu")
        canvas = Visualizer(image[:, :, ::-1], MetadataCatalog.get(dataset), scale=3)
        confident = instances[instances.scores > 0.5]
        pictures.append(canvas.draw_instance_predictions(confident).get_image()[:, :, ::-1])
        cv2.imwrite(str(folder / f"{Path(record['file_name']).stem}.png"), pictures[-1])
    return np.concatenate(pictures, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), metavar="FOLDER")
    parser.add_argument("--train", type=int, default=800, help="images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="keys of both configs and their values")
    args = parser.parse_args()
    start = time.monotonic()
    datasets = args.output.resolve() / "datasets"
    rows, pictures = [], []
    with one_line_errors():
        write_shapes(datasets / "shapes", train=args.train, val=args.val)
        for name, config in MODELS.values():
            train(config, datasets, args.output / name, args.opts)
    register_shapes(datasets)
    for title, (name, _) in MODELS.items():
        metrics = evaluation(args.output / name)
        for task, key in TASKS.items():
            if f"{key}/AP" in metrics:
                values = [metrics[f"{key}/{metric}"] for metric in ("AP", "AP50", "AP75")]
                rows.append([title, task, *values])
        pictures.append(detections(trained_config(args.output / name), args.output / name))
    overview = args.output / "detections.png"
    cv2.imwrite(str(overview), np.concatenate(pictures))
    header = ["model, trained from scratch on the shapes", "task", "AP", "AP50", "AP75"]
    print("\n" + tabulate(rows, header, tablefmt="github", floatfmt=".1f"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    minutes = (time.monotonic() - start) / 60
    print(f"\n{args.val} held-out images; {minutes:.1f} minutes on {device}. Detections: {overview}")


if __name__ == "__main__":
    main()
