"""The report in a page, and its pictures."""

from pathlib import Path

import pytest
from experimenting import report
from experimenting.drawings import draw_curves
from experimenting.folder import Experiment, read_all
from experimenting.report import write_report
from experimenting.seeing import Seen
from made_up_runs import Train

from nl_detectron.errors import UserError


@pytest.fixture
def trained(experiment: Experiment, train: Train, cheap_counting: None) -> Experiment:
    for seed, far in ((1, 40.0), (2, 42.0)):
        train("mask/baseline", seed, bbox=(far, 80.0), segm=(39.0, 79.0))
        train("mask/nl_res4", seed, bbox=(far + 30, 80.0), segm=(69.0, 79.0))
    train("keypoint/nl_head", 1, bbox=(50.0, 51.0), keypoints=(20.0, 90.0))
    return experiment


def test_curves(trained: Experiment) -> None:
    """The loss, and the score that needs the disc, far and near; no row for groups of one."""
    figure = draw_curves(read_all(trained))
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "loss_cls in training, far and near", "box AP, far", "box AP, near",
    ]  # fmt: skip
    assert figure.axes[0].get_title(loc="left") == "Mask R-CNN"
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["baseline, 2 seeds", "+1 NL in res4, 2 seeds"]
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [
        [40.0], [42.0], [41.0], [70.0], [72.0], [71.0],
    ]  # fmt: skip


def test_places_in_a_page(trained: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "look_at_all", lambda run: Seen([[True], [False]]))
    monkeypatch.setattr(report, "draw_attention", lambda runs: [("front", draw_curves(runs))])
    page = tmp_path / "page.md"
    place = "<!-- results:{} -->\nstale\n<!-- /results -->\n"
    page.write_text("# Ours\n" + "".join(map(place.format, ("summary", "places"))) + "end\n")
    write_report(trained, page)
    text = page.read_text()
    assert text.startswith("# Ours\n<!-- results:summary -->\n5 of the ")
    assert "\n| baseline                  | 1, 2        | 50.0 ± 0.0" in text
    assert text.endswith("|\n<!-- /results -->\nend\n")
    assert "stale" not in text
    assert (tmp_path / "page_curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page_attention_front.jpg").read_bytes().startswith(b"\xff\xd8")


def test_a_place_that_is_not_known(trained: Experiment, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- results:mask -->\n<!-- /results -->\n")
    with pytest.raises(UserError, match="results:settings -->, .*; got \\['mask'\\] of 1"):
        write_report(trained, page)
