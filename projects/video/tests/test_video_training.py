"""train_net.py, its configs and attention.py, on files that the tests write."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import attention
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from doc_blocks import Reader
from doc_blocks import blocks_of as blocks_of_page
from made_videos import numbered, write_video
from nl_video.attention import attend, blocks_of, draw_attention
from nl_video.classifier import VideoClassifier
from nl_video.nets import PLACES, add_non_local, c2d

from nl_detectron.inspect import attention_rows

PROJECT = Path(__file__).parents[1]
CONFIGS = sorted((PROJECT / "configs").glob("*_R*.py"))  # the README runs light_drawn
LIGHT = PROJECT / "configs" / "nl1_c2d_R50_32f.py"
SMALL = [
    *(
        "train.device=cpu",
        "train.init_checkpoint=''",
        "train.max_iter=3",
        "train.checkpoint_period=2",
        "train.seed=1",
    ),
    *("train.log_period=1", "model.net.net.num_classes=2", "dataloader.train.total_batch_size=2"),
    *("dataloader.train.num_workers=0", "dataloader.test.num_workers=0"),
    *(
        "dataloader.train.dataset.mapper.frames=4",
        "dataloader.test.mapper.frames=4",
        "dataloader.test.mapper.clips=2",
    ),
    *("dataloader.train.dataset.mapper.short_side=[32,40]", "dataloader.train.dataset.mapper.crop=32"),
    *("dataloader.test.mapper.short_side=[32]", "model.window=1"),
]


def load_train_net() -> ModuleType:
    """Not imported by name, as other programs have the same."""
    spec = importlib.util.spec_from_file_location("video_train_net", PROJECT / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(root: Path, *words: str) -> None:
    parts = [f"dataloader.{part}.root={root}" for part in ("train.dataset.records", "test.dataset")]
    flags, keys = ([word for word in words if word.startswith("--") is is_flag] for is_flag in (True, False))
    arguments = ["--config-file", str(LIGHT), *flags, *SMALL, *parts, *keys]
    train_net = load_train_net()
    train_net.main(train_net.default_argument_parser().parse_args(arguments))


def tensors_in(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file)["model"]


@pytest.mark.slow
def test_train_resume_and_evaluate(kinetics_folder: Path, tmp_path: Path) -> None:
    """An interrupted training ends as another one does; the video that cannot be read is counted."""
    output = tmp_path / "out"
    run(kinetics_folder, f"train.output_dir={output}")
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert [np.isfinite(line["total_loss"]) for line in lines if "total_loss" in line] == [True] * 3
    trained = tensors_in(output / "model_final.pth")
    (output / "model_final.pth").unlink()
    (output / "last_checkpoint").write_text("model_0000001.pth")
    run(kinetics_folder, "--resume", f"train.output_dir={output}")
    assert "Starting training from iteration 2" in (output / "log.txt").read_text()
    assert tensors_in(output / "model_final.pth").keys() == trained.keys()
    weights = f"train.init_checkpoint={output}/model_final.pth"
    run(kinetics_folder, "--eval-only", f"train.output_dir={output}", weights)
    log = (output / "log.txt").read_text()
    assert "1 non-local block:" in log
    assert "A video is skipped, as it cannot be read (the 1. time): " in log
    header, values = [line for line in log.splitlines() if "copypaste: " in line][-2:]
    assert header.endswith("top1,top5,videos,unreadable")
    assert values.endswith(",100.0000,2.0000,1.0000")


def test_weights_that_lack_the_block_are_not_evaluated(kinetics_folder: Path, tmp_path: Path) -> None:
    torch.save({"model": c2d(50, num_classes=2).state_dict()}, tmp_path / "baseline.pth")
    weights = f"train.init_checkpoint={tmp_path / 'baseline.pth'}"
    with pytest.raises(SystemExit, match=r"baseline.pth lacks layer3.non_local_5\.$"):
        run(kinetics_folder, "--eval-only", f"train.output_dir={tmp_path / 'out'}", weights)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"^error: --config-file is missing\. Give one of"),
        (
            ["--config-file", str(LIGHT), "train.seed=1", "train.amp"],
            r"^error: train.*: Error parsing override 'train\.amp'\. Write",
        ),
    ],
)
def test_mistakes_in_a_command_line(words: list[str], message: str) -> None:
    train_net = load_train_net()
    with pytest.raises(SystemExit, match=message):
        train_net.main(train_net.default_argument_parser().parse_args(words))


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path: Path) -> None:
    """Drawn videos are written, trained on, evaluated, and looked at; costs are as printed."""
    page = PROJECT / "README.md"
    folders = [tmp_path / name for name in ("work", "datasets")]
    for folder in folders:
        folder.mkdir()
    reader = Reader(page, *folders)
    for block in blocks_of_page(page):
        reader.read_to(block, has_coco=False)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds(file: Path) -> None:
    """With as many blocks as its name says, and the schedule of its data set."""
    cfg = LazyConfig.load(str(file))
    with torch.device("meta"):
        model = instantiate(cfg.model)
    expected = int(file.stem[2:].split("_")[0]) if file.stem.startswith("nl") else 0
    assert len(blocks_of(model)) == expected
    assert model.net.fc.out_features == (157 if "charades" in file.stem else 400)
    assert cfg.dataloader.train.dataset.mapper.frames * cfg.dataloader.train.dataset.mapper.step in (64, 128)
    schedule = instantiate(cfg.lr_multiplier)
    assert [schedule(k / 400) for k in (0, 149, 151, 299, 301)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert model.freeze_norms == ("128f" in file.stem)


@pytest.mark.parametrize("axes", ["spacetime", "space", "time"])
def test_what_a_position_attends_to(axes: str) -> None:
    """Rows of Eq. 1: they sum to 1, and lie within the frame or the place where the block looks."""
    model = VideoClassifier(add_non_local(c2d(50, num_classes=3), PLACES[1][50], axes), window=2).eval()
    clip = torch.randint(0, 256, (3, 16, 64, 96), dtype=torch.uint8)
    (found,) = attend(model, clip, frame=15, y=40, x=95)
    assert found.name == "net.layer3.non_local_5"
    assert found.size == (2, 4, 6)
    assert found.position == (1, 2, 5)
    assert found.weights.shape == ((2, 4, 6) if axes == "time" else (2, 2, 3))
    assert found.weights.sum() == pytest.approx(1, abs=1e-5)
    where = {"spacetime": found.weights >= 0, "space": np.s_[1], "time": np.s_[:, 2, 5]}[axes]
    assert found.weights[where].sum() == pytest.approx(1, abs=1e-5)
    figure = draw_attention(clip, found)
    assert len(figure.axes) == 2
    assert "the strongest positions, at most 20" in figure.get_suptitle()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["frame 0", "frame 15"]


def test_attention_is_that_of_the_package() -> None:
    model = VideoClassifier(add_non_local(c2d(50, num_classes=3), PLACES[1][50]), window=2).eval()
    clip = torch.randint(0, 256, (3, 8, 64, 64), dtype=torch.uint8)
    seen = []
    block = model.net.layer3.non_local_5
    block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    (found,) = attend(model, clip, frame=0, y=20, x=50)
    expected = attention_rows(block, seen[0], torch.tensor([1 * 4 + 3]))[0, 0]
    np.testing.assert_array_equal(found.weights, expected.numpy())


def test_pictures_of_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG for each block; a point outside, and a file that is no video, are mistakes in one line."""
    net = add_non_local(c2d(50, num_classes=2), PLACES[1][50])
    torch.save(
        {"model": {f"net.{name}": each for name, each in net.state_dict().items()}}, tmp_path / "model.pth"
    )
    video = write_video(tmp_path / "a.mp4", numbered(12))

    def draw(*words: object) -> None:
        config = str(LIGHT)
        rest = [f"train.init_checkpoint={tmp_path / 'model.pth'}", *SMALL[6:7], *SMALL[9:]]
        command = ["attention.py", "--config-file", config, "--output", tmp_path / "drawn", *words, *rest]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        attention.main()

    draw("--input", video, "--frame", "3", "--point", "10", "20")
    assert (tmp_path / "drawn" / "net.layer3.non_local_5.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        SystemExit, match=r"error: --frame and --point must lie within 4 frames of 42 x 32 pixels"
    ):
        draw("--input", video, "--frame", "4")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit, match=r"b.mp4 cannot be read as a video\.$"):
        draw("--input", tmp_path / "b.mp4")
