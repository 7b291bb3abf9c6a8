"""Drawn clips: that only both discs tell the class, and that nothing without a block can see both."""

import sys
from pathlib import Path

import compare
import numpy as np
import pytest
import torch
from nl_video import comparison
from nl_video.comparison import ARMS, Result, light_net, train
from nl_video.drawn import FRAMES, KINDS, RADIUS, SIDE, DrawnClips, draw_clip


@pytest.mark.parametrize("kind", KINDS)
def test_where_discs_are(kind: str) -> None:
    """Far ones are farther apart than a network without a block sees; the class is that of their colors."""
    for seed in range(20):
        clip = draw_clip(kind, seed % 2, np.random.default_rng(seed))
        assert clip.shape == (FRAMES, SIDE, SIDE, 3)
        difference = clip[..., 0].astype(int) - clip[..., 2]
        frames = np.unique(np.nonzero(np.abs(difference) > 100)[0]).tolist()
        colors = {(difference > 100).any(), (difference < -100).any()}
        assert (colors == {True}) is bool(seed % 2)  # both colors, or one of them
        if kind in ("far in time", "far in both"):
            assert frames == [0, 1, FRAMES - 2, FRAMES - 1]
        else:
            assert len(frames) == 2
            assert frames[1] - frames[0] == 1
        places = np.argwhere(np.abs(difference) > 100)[:, 1:]
        extent = np.ptp(places, axis=0).max()
        expected = {"near": 4 * RADIUS, "far in time": 2 * RADIUS}.get(kind, SIDE - 3)
        assert extent == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("kind", KINDS)
def test_either_class_is_as_likely_for_either_color(kind: str) -> None:
    """Neither the color of one disc nor the place tells the class."""
    reds = {0: [], 1: []}
    for seed in range(200):
        clip = draw_clip(kind, seed % 2, np.random.default_rng(seed)).astype(int)
        reds[seed % 2].append((clip[..., 0] - clip[..., 2]).sum())
    assert abs(np.mean(np.sign(reds[0]))) < 0.3  # as often both red as both blue
    assert abs(np.mean(reds[1])) < 0.1 * np.mean(np.abs(reds[0]))


def test_records() -> None:
    """The same each time; all kinds, and both classes of each."""
    clips = DrawnClips(KINDS, 16, seed=3)
    assert len(clips) == 16
    assert clips[5]["clips"].equal(DrawnClips(KINDS, 16, seed=3)[5]["clips"])
    assert not clips[5]["clips"].equal(DrawnClips(KINDS, 16, seed=4)[5]["clips"])
    assert clips[5]["clips"].shape == (1, 3, FRAMES, SIDE, SIDE)
    seen = [(record["kind"], record["label"]) for record in clips]
    assert {pair: seen.count(pair) for pair in seen} == {
        (kind, label): 2 for kind in KINDS for label in (0, 1)
    }


def influences(arm: str, frame: int, y: int, x: int) -> torch.Tensor:
    """(T', H', W'): whether each position of the last map depends on a pixel."""
    torch.manual_seed(0)
    net = light_net(arm).double().eval()
    for name, module in net.named_modules():
        if name.endswith("out.norm"):
            torch.nn.init.ones_(module.weight)  # blocks that are no longer the identity
    clip = torch.rand(1, 3, FRAMES, SIDE, SIDE, dtype=torch.float64)
    other = clip.clone()
    other[..., frame, y, x] += 5
    maps = []
    net.layer3.register_forward_hook(lambda _, inputs, output: maps.append(output))
    with torch.no_grad():
        net(clip), net(other)
    return (maps[0] - maps[1]).abs().amax((0, 1)) > 1e-9


def test_without_a_block_no_position_sees_both_discs() -> None:
    """Neither over space nor over time; with a block over both, every position does."""
    edge, middle = RADIUS + 1, SIDE // 2
    left, right = (influences("C2D", 0, middle, x) for x in (edge, SIDE - edge - 1))
    assert left.any()
    assert right.any()
    assert not (left & right).any()
    first, last = (influences("C2D", frame, middle, middle) for frame in (0, FRAMES - 2))
    assert first.any()
    assert last.any()
    assert not (first & last).any()
    assert influences("+1 NL, spacetime", 0, middle, edge).all()
    assert not influences("+1 NL, space", 0, middle, edge)[1].any()
    assert not influences("+1 NL, time", 0, middle, edge)[:, :, -1].any()


@pytest.mark.parametrize("arm", ARMS)
def test_arms(arm: str) -> None:
    """All start from the same weights, and blocks as the identity."""
    torch.manual_seed(2)
    baseline = light_net("C2D").eval()
    torch.manual_seed(2)
    net = light_net(arm).eval()
    clip = torch.rand(1, 3, FRAMES, SIDE, SIDE)
    with torch.no_grad():
        assert net(clip).equal(baseline(clip))


def test_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained once; the table has means, and the smallest and largest value."""
    trained = []

    class Pool:
        def __init__(self, *arguments: object) -> None: ...
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *error: object) -> None: ...
        def submit(self, function, arm: str, seed: int, steps: int) -> Result:
            trained.append((arm, seed))
            return Result(arm, seed, steps, dict.fromkeys(KINDS, 50.0 + seed))

    monkeypatch.setattr(comparison, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(comparison, "as_completed", lambda running: [Done(each) for each in running])
    for _ in range(2):
        monkeypatch.setattr(
            sys, "argv", ["compare.py", "--output", str(tmp_path), "--seed", "1", "--seed", "3"]
        )
        compare.main()
    assert len(trained) == 2 * len(ARMS)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| C2D "))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["C2D", "1, 3", *["52 (51 to 53)"] * 4]
    monkeypatch.setattr(sys, "argv", ["compare.py", "--output", str(tmp_path), "--seed", "1", "--steps", "2"])
    compare.main()
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3 * len(ARMS)  # none is lost


class Done:
    def __init__(self, value: Result) -> None:
        self.value = value

    def result(self) -> Result:
        return self.value


@pytest.mark.slow
def test_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Detectron2's trainer: the same seed gives the same."""
    monkeypatch.setattr(comparison, "_TEST_CLIPS", 8)
    results = [train("+1 NL, spacetime", 1, 2) for _ in range(2)]
    assert results[0] == results[1]
    assert set(results[0].accuracy) == set(KINDS)


def test_a_picture_of_the_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", "--preview", str(tmp_path / "clips.png")])
    compare.main()
    assert (tmp_path / "clips.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], r"^error: --jobs, --steps, --train and --val must be at least 1\.$"),
        (["--seed", "1", "--seed", "0"], r"^error: --seed must be at least 1; got 0\. Test clips have the"),
        (["--preview", "clips.doc"], r"^error: --preview clips\.doc ends in none of \.png, \.pdf, \.svg\.$"),
    ],
)
def test_mistakes_in_a_comparison(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    with pytest.raises(SystemExit, match=message):
        compare.main()
