"""What test_distributed.py runs in two processes: `two_ranks.py CONFIG FOLDER CHECK ...`."""

import argparse
import copy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from unittest import mock

import nl_detectron_shapes  # noqa: F401
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.engine.defaults import create_ddp_model
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from runs import SMALL
from torch import Tensor, nn

from nl_detectron import model_zoo
from nl_detectron.engine import Trainer
from nl_detectron.engine.distributed import run_in_processes
from nl_detectron_cli.arguments import train_net_parser


def equal_weights(cfg: CfgNode) -> None:
    """After three steps on different images and an evaluation, for which they share BN's statistics."""
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 3, ()
    trainer = Trainer(cfg)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    images = comm.all_gather(trainer.data_loader.images)
    assert not set(images[0]) & set(images[1]), images
    after = dict(trainer.model.named_parameters())
    assert not after["module.backbone.fpn_output2.weight"].equal(before["module.backbone.fpn_output2.weight"])
    assert_equal_in_all_ranks(trainer.model.state_dict().items())


def assert_equal_in_all_ranks(named: Iterable[tuple[str, Tensor]]) -> None:
    ours = {name: tensor.detach() for name, tensor in named}
    for theirs in comm.all_gather(ours):
        differing = [name for name in ours if not ours[name].equal(theirs[name])]
        assert not differing, differing


def equal_steps(cfg: CfgNode) -> None:
    """One step on two ranks of two images is one step on one rank of four.

    With losses that are means over as many terms in each rank, and nothing drawn: as many RoIs an image in
    all of them, no masks, and the first proposals of each image instead of random ones.
    """
    cfg.MODEL.MASK_ON = False
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.NON_LOCAL.NORM = cfg.MODEL.FPN.NORM = "GN"
    cfg.MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS = False
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    torch.manual_seed(comm.get_rank())  # which data parallelism has to make up for
    alone = build_model(cfg)
    learn_in_new_blocks(alone)
    shared = create_ddp_model(copy.deepcopy(alone), device_ids=None, broadcast_buffers=False)
    alone.load_state_dict(shared.module.state_dict())
    batch = images_of(cfg)[:4]
    half = batch[2 * comm.get_rank() :][:2]
    with mock.patch("torch.randperm", lambda n, **options: torch.arange(n, device=options.get("device"))):
        for model, images in ((alone, batch), (shared, half)):
            losses = model.train()(images)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            sum(losses.values()).backward()
            optimizer.step()
    gradients = {name: p.grad for name, p in alone.named_parameters()}
    for name, parameter in shared.module.named_parameters():
        # phi's bias has gradients of zero but for rounding: softmax cancels it
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=0, atol=1e-4 * scale + 1e-8)
    assert_equal_in_all_ranks(shared.named_parameters())


def learn_in_new_blocks(model: nn.Module) -> None:
    """Blocks that are the identity would have no gradient in theta, phi and g to compare."""
    for name, parameter in model.named_parameters():
        if "non_local" in name and name.endswith("norm.weight"):
            nn.init.uniform_(parameter)


def no_instances(cfg: CfgNode) -> None:
    """Steps in which one rank, the other, and both have images without a single object."""
    torch.manual_seed(0)
    model = create_ddp_model(build_model(cfg), device_ids=None, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    batch = images_of(cfg)[2 * comm.get_rank() :][:2]
    for without in ((0,), (1,), (0, 1)):
        images = [without_objects(image) for image in batch] if comm.get_rank() in without else batch
        losses = model.train()(images)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        assert all(loss.isfinite() for loss in losses.values()), losses
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert_equal_in_all_ranks(model.named_parameters())


def images_of(cfg: CfgNode) -> list[dict[str, object]]:
    """The training set, without augmentation, with objects in every image."""
    mapper = DatasetMapper(cfg, is_train=True, augmentations=[])
    images = [mapper(record) for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0])]
    return [image for image in images if len(image["instances"])]


def without_objects(image: dict[str, object]) -> dict[str, object]:
    return {**image, "instances": image["instances"][:0]}


CHECKS: dict[str, Callable[[CfgNode], None]] = {
    "equal_weights": equal_weights,
    "equal_steps": equal_steps,
    "no_instances": no_instances,
}


def main() -> None:
    config, folder, *checks = sys.argv[1:]
    cfg = model_zoo.get_config(config)
    cfg.merge_from_list([*SMALL, "SEED", "1", "OUTPUT_DIR", folder, "SOLVER.IMS_PER_BATCH", "4"])
    args = train_net_parser().parse_args(["--timeout", "1"])

    def run(cfg: CfgNode, args: argparse.Namespace) -> None:
        for check in checks:
            with EventStorage():
                CHECKS[check](cfg.clone())
        Path(folder, f"{comm.get_rank()}.passed").touch()

    run_in_processes(run, cfg, args)


if __name__ == "__main__":
    main()
