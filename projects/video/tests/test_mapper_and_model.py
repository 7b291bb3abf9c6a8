"""From files to clips, to losses and scores, to metrics."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lively_norms import with_lively_norms
from made_videos import LEVELS, numbered, write_video
from nl_video import c2d
from nl_video.classifier import VideoClassifier
from nl_video.evaluator import VideoEvaluator, mean_average_precision, top
from nl_video.mapper import ClipMapper, ReadableClips
from torch import Tensor, nn

from nl_detectron.errors import UserError


@pytest.fixture
def video(tmp_path: Path) -> str:
    return str(write_video(tmp_path / "a.mp4", numbered(40)))


def test_a_clip_to_train_on(video: str) -> None:
    """Frames in order, two apart, all with the same crop; another seed is another clip."""
    mapper = ClipMapper(is_train=True, frames=4, step=2, short_side=(32, 40), crop=24)
    firsts = set()
    for seed in range(8):
        torch.manual_seed(seed)
        mapped = mapper({"file_name": video, "label": 1})
        assert mapped["clips"].shape == (1, 3, 4, 24, 24)
        assert mapped["clips"].dtype == torch.uint8
        assert mapped["label"] == 1
        numbers = (mapped["clips"][0].float().mean((0, 2, 3)) / LEVELS).int().tolist()
        assert np.diff(numbers).tolist() == [2, 2, 2]
        firsts.add(numbers[0])
        torch.manual_seed(seed)
        assert mapper({"file_name": video, "label": 1})["clips"].equal(mapped["clips"])
    assert len(firsts) > 3


def test_clips_to_test_on(video: str) -> None:
    """Whole frames with the shorter side as given."""
    mapper = ClipMapper(is_train=False, frames=4, step=2, clips=3, short_side=(24, 40))
    clips = mapper({"file_name": video})["clips"]
    assert clips.shape == (3, 3, 4, 24, 32)
    assert (clips[:, 0, 0].float().mean((1, 2)) / LEVELS).int().tolist() == [0, 16, 32]


def test_videos_that_cannot_be_read_are_counted(video: str, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"no video")
    record = {"file_name": str(tmp_path / "b.mp4"), "label": 0}
    for is_train, expected in ((True, None), (False, record)):
        mapper = ClipMapper(is_train=is_train, frames=2, step=1, clips=1)
        assert mapper(record) == expected
        assert mapper.unreadable.value == 1


def test_another_video_is_trained_on_instead(video: str, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"no video")
    bad, good = {"file_name": str(tmp_path / "b.mp4"), "label": 0}, {"file_name": video, "label": 1}
    mapper = ClipMapper(is_train=True, frames=2, step=1, short_side=(32, 32), crop=24)
    clips = ReadableClips([bad, good], mapper)
    assert len(clips) == 2
    assert [clips[0]["label"], clips[1]["label"]] == [1, 1]
    with pytest.raises(UserError, match="20 videos in a row cannot be read"):
        ReadableClips([bad], mapper)[0]


class Mean(nn.Module):
    """A network with the names of torchvision's, that a loop can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 4, 1)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.conv1(x)).flatten(1))


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_means_over_clips_and_windows(multi_label: bool) -> None:
    """Of all squares as large as in training, and all clips (Section 4.1)."""
    model = VideoClassifier(Mean(), multi_label=multi_label, window=3).eval()
    clips = torch.randint(0, 256, (2, 3, 2, 4, 6), dtype=torch.uint8)
    total, count = torch.zeros(5), 0
    with torch.no_grad():
        for clip in clips:
            for top_row in range(2):
                for left in range(4):
                    x = model.normalize(clip[None, :, :, top_row : top_row + 3, left : left + 3])
                    logits = model.net(x)[0]
                    total += logits.sigmoid() if multi_label else logits.softmax(0)
                    count += 1
        ((found,), nothing) = (model([{"clips": clips}]), model([{"label": 1}]))
    torch.testing.assert_close(found["scores"], total / count)
    assert nothing == [{"scores": None}]


def test_losses() -> None:
    clips = torch.randint(0, 256, (2, 1, 3, 2, 4, 4), dtype=torch.uint8)
    for multi_label, labels in ((False, [3, 0]), (True, [[0, 4], []])):
        model = VideoClassifier(Mean(), multi_label=multi_label).train()
        found = model([{"clips": clip, "label": label} for clip, label in zip(clips, labels, strict=True)])
        logits = model.net(model.normalize(clips.flatten(0, 1)))
        if multi_label:
            targets = torch.tensor([[1.0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
            expected = -(targets * logits.sigmoid().log() + (1 - targets) * (-logits).sigmoid().log()).mean()
        else:
            expected = -F.log_softmax(logits, 1)[[0, 1], labels].mean()
        torch.testing.assert_close(found["loss_cls"], expected)


def test_a_class_that_the_network_lacks() -> None:
    record = {"clips": torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8)}
    for multi_label, label in ((False, 5), (True, [0, 5])):
        with pytest.raises(UserError, match="There is a class 5, but the network has 5. Set num_classes."):
            VideoClassifier(Mean(), multi_label=multi_label).train()([record | {"label": label}])


def test_frozen_norms() -> None:
    """As for 128 frames: neither statistics nor scales change."""
    net = with_lively_norms(c2d(50, num_classes=2))
    model = VideoClassifier(net, freeze_norms=True).train()
    before = {name: value.clone() for name, value in net.state_dict().items() if "bn" in name}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    record = {"clips": torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8), "label": 1}
    model([record])["loss_cls"].backward()
    optimizer.step()
    assert all(net.state_dict()[name].equal(value) for name, value in before.items())
    assert net.conv1.weight.grad.abs().max() > 0


def test_top_k() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    assert top(1, [1, 1, 2], scores) == pytest.approx(200 / 3)
    assert top(2, [1, 1, 2], scores) == 100


def test_mean_average_precision() -> None:
    """As a loop down each class's list, which ends with videos without an action (Charades' own code)."""
    rng = np.random.default_rng(0)
    labels = [sorted(rng.choice(6, size=rng.integers(0, 3), replace=False).tolist()) for _ in range(30)]
    scores = rng.random((30, 8))
    values = []
    for c in range(8):
        hits, precisions = 0, []
        for rank, k in enumerate(
            sorted(range(30), key=lambda k: -scores[k, c] + 9 * (not labels[k])), start=1
        ):
            if c in labels[k]:
                hits += 1
                precisions.append(hits / rank)
        if precisions:
            values.append(sum(precisions) / len(precisions))
    assert mean_average_precision(labels, scores) == pytest.approx(100 * sum(values) / len(values))
    assert np.isnan(mean_average_precision([[], []], np.zeros((2, 3))))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_evaluator(multi_label: bool) -> None:
    evaluator = VideoEvaluator(multi_label)
    evaluator.reset()
    wrap: Callable = (lambda label: [label]) if multi_label else (lambda label: label)
    evaluator.process(
        [{"label": wrap(0)}, {"label": wrap(1)}], [{"scores": torch.tensor([0.9, 0.1])}, {"scores": None}]
    )
    evaluator.process([{"label": wrap(0)}], [{"scores": torch.tensor([0.4, 0.6])}])
    found = evaluator.evaluate()["video"]
    assert (found["videos"], found["unreadable"]) == (2, 1)
    expected = {"mAP": 100.0} if multi_label else {"top1": 50.0, "top5": 100.0}
    assert {key: found[key] for key in expected} == expected
    evaluator.reset()
    evaluator.process([{"label": wrap(1)}], [{"scores": None}])
    assert evaluator.evaluate() == {"video": {"videos": 0, "unreadable": 1}}
