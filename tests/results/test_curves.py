"""Training curves: which lines are drawn, and the files they are written to."""

from pathlib import Path

import pytest
from made_up_runs import MASK, MASK_NL, write_log, write_metrics
from PIL import Image

from nl_detectron.errors import UserError
from nl_detectron.results import Comparison, draw_curves, pair_runs, plot_curves, read_run


@pytest.fixture
def comparisons(tmp_path: Path) -> list[Comparison]:
    """Two seeds; the second one was also evaluated after 50 steps, which is written under iteration 49."""
    runs = []
    for seed in (1, 2):
        for config, gain in ((MASK, 0.0), (MASK_NL, 1.0)):
            folder = tmp_path / f"{gain}_{seed}"
            write_log(folder, config, "SEED", str(seed))
            write_metrics(folder, 19, loss=4.0 + seed)
            write_metrics(folder, 99, loss=2.0 + seed)
            if seed == 2:
                write_metrics(folder, 49, loss=3.0, bbox=(20.0, 40.0, 10.0))
            write_metrics(folder, 100, loss=1.0, bbox=(30.0 + seed + gain, 50.0, 20.0))
            runs.append(read_run(folder))
    return pair_runs(runs)


def test_a_thin_line_for_each_seed_and_their_mean(comparisons: list[Comparison]) -> None:
    loss, ap = plot_curves(comparisons).axes
    assert (loss.get_ylabel(), ap.get_ylabel()) == ("total loss", "box AP")
    assert loss.get_title(loc="left") == "Mask R-CNN R18-FPN, 100 x 4 images, shapes_val"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "baseline, 2 seeds",
        "+1 NL in res4, 2 seeds",
    ]
    one, other, mean = loss.lines[:3]
    assert one.get_xydata().tolist() == [[19, 5], [99, 3], [100, 1]]
    assert other.get_xydata().tolist() == [[19, 6], [49, 3], [99, 4], [100, 1]]
    assert mean.get_xydata().tolist() == [[19, 5.5], [99, 3.5], [100, 1]]
    assert one.get_linewidth() < mean.get_linewidth()
    assert [line.get_xydata().tolist() for line in ap.lines] == [
        [[100, 31]],
        [[50, 20], [100, 32]],
        [[100, 31.5]],
        [[100, 32]],
        [[50, 20], [100, 33]],
        [[100, 32.5]],
    ]
    assert all(ax.get_xlim() == (0, 102) for ax in (loss, ap))
    assert ap.get_ylim() == pytest.approx((0, 1.05 * 33))
    baseline, nl = ({line.get_color() for ax in (loss, ap) for line in ax.lines[k : k + 3]} for k in (0, 3))
    assert len(baseline) == len(nl) == 1
    assert baseline != nl


def test_files(comparisons: list[Comparison], tmp_path: Path) -> None:
    draw_curves(comparisons, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 16)) > 2
    for name in ("curves", "curves.doc"):
        with pytest.raises(UserError, match=f"{name} must end in a format that can be drawn; use .png"):
            draw_curves(comparisons, tmp_path / name)
    assert not [*tmp_path.glob("*doc"), *tmp_path.glob(".unfinished*")]
