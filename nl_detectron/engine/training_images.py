"""--draw-training N: pictures of a training's first images with their objects, as the model gets them.

Detectron2's tools/visualize_data.py draws the same for its own loader.
"""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.data.detection_utils import convert_image_to_rgb

from nl_detectron.data.loaders import build_train_loader
from nl_detectron.inspect import LabelVisualizer
from nl_detectron.names import complete_metadata


def draw_training_images(cfg: CfgNode, count: int, skip_broken: int = 0) -> Path:
    """Draw the first `count` images that a training with this SEED loads, and return their folder.

    A process of its own draws them: the training keeps its random numbers and its log.

    Raises:
        UserError: if more than `skip_broken` images cannot be read.
    """
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        return pool.submit(_draw_all, cfg, count, skip_broken).result()


def _draw_all(cfg: CfgNode, count: int, skip_broken: int) -> Path:
    torch.set_num_threads(1)  # PyTorch's threads do not survive the fork
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.IMS_PER_BATCH = cfg.SOLVER.ACCUMULATE = 1  # one by one, in the order of the sampler
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATASETS.TEST, cfg.MODEL.WEIGHTS = cfg.DATASETS.TRAIN, ""  # whose names are shown
    metadata = complete_metadata(cfg)
    folder = Path(cfg.OUTPUT_DIR) / "training_images"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    records = chain.from_iterable(build_train_loader(cfg, skip_broken=skip_broken))
    for k, record in enumerate(islice(records, count)):
        name = f"{k:04d}_{Path(record['file_name']).stem}.jpg"
        picture = draw_truth(record, cfg.INPUT.FORMAT, metadata)
        (folder / name).write_bytes(cv2.imencode(".jpg", picture)[1])
    return folder


def draw_truth(record: Mapping[str, object], image_format: str, metadata: Metadata) -> np.ndarray:
    """Draw an item of a training batch with its objects: (H, W, 3) uint8, BGR, small ones enlarged."""
    image = convert_image_to_rgb(record["image"].permute(1, 2, 0), image_format)
    visualizer = LabelVisualizer(image, metadata)
    if "instances" in record:
        truth = record["instances"].get_fields()
        visualizer.overlay_instances(
            labels=[metadata.thing_classes[k] for k in truth["gt_classes"]],
            boxes=truth["gt_boxes"],
            masks=truth.get("gt_masks"),
            keypoints=truth.get("gt_keypoints"),
        )
    return visualizer.output.get_image()[:, :, ::-1]
