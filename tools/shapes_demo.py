#!/usr/bin/env python
"""From nothing to box, mask and keypoint AP: draw the shapes, train two light models with non-local
blocks on them through train_net.py, evaluate both, draw what they detect.

    python tools/shapes_demo.py --output output/demo
"""

import os
import subprocess
import sys
import time
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.utils.visualizer import Visualizer
from nl_detectron_shapes import register_shapes, write_shapes
from tabulate import tabulate

from nl_detectron.engine import Run, output_path, read_dataset, read_run
from nl_detectron.errors import one_line_errors
from nl_detectron.inspect import read_image
from nl_detectron.predictor import Predictor

TRAIN_NET = Path(__file__).resolve().parents[1] / "train_net.py"
MODELS = {  # what is trained, and its config
    "Mask R-CNN R18-FPN, 1 non-local block in res4": "mask_rcnn_R_18_FPN_nl_shapes",
    "Keypoint R-CNN R18-FPN, 4 non-local blocks in the head": "keypoint_rcnn_R_18_FPN_nl_head_shapes",
}
TASKS = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}
COLUMNS = ("AP", "AP50", "AP75")


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=output_path, default=Path("output/demo"), metavar="FOLDER")
    parser.add_argument("--train", type=int, default=800, help="images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument("opts", nargs=REMAINDER, help="keys of both configs and their values")
    args = parser.parse_args()
    start = time.monotonic()
    datasets = args.output.resolve() / "datasets"
    rows, pictures = [], []
    with one_line_errors():
        write_shapes(datasets / "shapes", train=args.train, val=args.val)
        register_shapes(datasets)
        for title, config in MODELS.items():
            run = train(config, datasets, args.output / config, args.opts)
            metrics = run.history[run.cfg.SOLVER.MAX_ITER]
            for task, key in TASKS.items():
                if f"{key}/AP" in metrics:
                    rows.append([title, task, *(metrics[f"{key}/{column}"] for column in COLUMNS)])
            pictures.append(detections(run))
    overview = args.output / "detections.png"
    cv2.imwrite(str(overview), np.concatenate(pictures))
    header = ["model, trained from scratch on the shapes", "task", *COLUMNS]
    print("\n" + tabulate(rows, header, tablefmt="github", floatfmt=".1f"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    minutes = (time.monotonic() - start) / 60
    print(f"\n{args.val} held-out images; {minutes:.1f} minutes on {device}. Detections: {overview}")


def train(config: str, datasets: Path, output: Path, options: list[str]) -> Run:
    """Train and evaluate a shipped config on the shapes below `datasets`, in a process of its own."""
    command = [sys.executable, str(TRAIN_NET), "--config-file", f"quick_schedules/{config}.yaml"]
    command += [
        "--overwrite",
        "OUTPUT_DIR",
        str(output),
        "SEED",
        "1",
        "SOLVER.CHECKPOINTS_KEPT",
        "1",
        *options,
    ]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets)}
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit(f"error: {' '.join(command)} failed, see above")
    return read_run(output)


def detections(run: Run, count: int = 4) -> np.ndarray:
    """What a model detects on the first images of its test set, side by side.

    Returns:
        (H, W * count, 3) uint8, BGR.
    """
    run.cfg.MODEL.WEIGHTS = str(run.folder / "model_final.pth")
    predictor = Predictor(run.cfg)
    images = read_dataset("DATASETS.TEST", run.cfg.DATASETS.TEST[0])
    pictures = []
    for record in images[:count]:
        image = read_image(Path(record["file_name"]))
        instances = predictor(image)["instances"].to("cpu")
        canvas = Visualizer(image[:, :, ::-1], predictor.metadata, scale=3)
        canvas = canvas.draw_instance_predictions(instances[instances.scores > 0.5])
        pictures.append(canvas.get_image()[:, :, ::-1])
    return np.concatenate(pictures, axis=1)


if __name__ == "__main__":
    main()
