"""A network of clips as Detectron2's trainers and evaluators take it: losses in training, scores in tests."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nl_detectron.errors import UserError


class VideoClassifier(nn.Module):
    """Classes of videos, one for each (Kinetics: softmax), or any number (Charades: sigmoids)."""

    def __init__(
        self,
        net: nn.Module,
        *,
        multi_label: bool = False,
        window: int = 7,
        freeze_norms: bool = False,
        pixel_mean: Sequence[float] = (123.675, 116.28, 103.53),
        pixel_std: Sequence[float] = (58.395, 57.12, 57.375),
    ) -> None:
        """
        Args:
            net: of `nets`.
            window: the side of the last map in training (224 / 32). Tests score each such part of a map.
            freeze_norms: keep all batch norms as they are, as for 128 frames (Section 5.1).
            pixel_mean, pixel_std: of RGB in [0, 255]; torchvision's of ImageNet.
        """
        super().__init__()
        self.net, self.multi_label, self.window, self.freeze_norms = net, multi_label, window, freeze_norms
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1, 1), persistent=False)
        if freeze_norms:
            for norm in self._norms():
                norm.requires_grad_(False)

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.net.modules() if isinstance(module, _BatchNorm)]

    def train(self, mode: bool = True) -> "VideoClassifier":
        super().train(mode)
        if self.freeze_norms:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, records: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            records: each with `clips` (K, 3, T, H, W) uint8; in a test without any if it cannot be read; in
                training with one clip and `label`, a class or a list of classes.

        Returns:
            In training the loss; else for each record `scores`, the probability of each class, or None.
        """
        if self.training:
            logits = self.net(self.normalize(torch.cat([record["clips"] for record in records])))
            return {"loss_cls": self._loss(logits, [record["label"] for record in records])}
        return [{"scores": self.scores(each["clips"]) if "clips" in each else None} for each in records]

    def normalize(self, clips: Tensor) -> Tensor:
        return (clips.to(self.pixel_mean) - self.pixel_mean) / self.pixel_std

    def _loss(self, logits: Tensor, labels: list) -> Tensor:
        classes = logits.shape[1]
        if (most := max((label for each in labels for label in np.atleast_1d(each)), default=0)) >= classes:
            raise UserError(f"There is a class {most}, but the network has {classes}. Set num_classes.")
        if not self.multi_label:
            return F.cross_entropy(logits, torch.tensor(labels, device=logits.device))
        targets = torch.zeros_like(logits)
        for target, classes in zip(targets, labels, strict=True):
            target[classes] = 1
        return F.binary_cross_entropy_with_logits(logits, targets)

    def scores(self, clips: Tensor) -> Tensor:
        """(classes,): the mean over clips (K, 3, T, H, W) and all windows of their maps (Section 4.1)."""
        return torch.stack([self._scores_of(clip) for clip in clips]).mean(0)

    def _scores_of(self, clip: Tensor) -> Tensor:
        x = self.normalize(clip[None])
        for name, module in self.net.named_children():
            if name == "avgpool":
                break
            x = module(x)
        size = (x.shape[2], *(min(self.window, side) for side in x.shape[3:]))
        logits = self.net.fc(F.avg_pool3d(x, size, stride=1)[0].movedim(0, -1))  # (1, H', W', classes)
        scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        return scores.flatten(0, 2).mean(0)
