"""The tables of tools/results.py: arithmetic by hand, the paper's rows, curves."""

import csv
import io
from pathlib import Path
from unittest.mock import Mock

import pytest
from made_up_runs import run
from runs import ROOT

from nl_detectron.errors import UserError
from nl_detectron.inspect import Counts
from nl_detectron_cli.result_tables.pairing import Group, group_runs
from nl_detectron_cli.result_tables.program import filled_in
from nl_detectron_cli.result_tables.tables import TABLE_5, TABLE_6, format_table, plot_curves, result_table

R50 = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
R50_NL = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml"
KEYPOINT_NL = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml"
COCO = {"coco_2017_train": 118287, "coco_2017_val": 5000}
PLACE = "<!-- results:{} -->\n<!-- /results -->"


@pytest.fixture(autouse=True)
def _no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks cost the same, as counting a model takes seconds."""
    costs = Counts(40_000_000, 200_000_000_000, 1), Counts(42_100_000, 210_000_000_000, 2)
    monkeypatch.setattr("nl_detectron_cli.result_tables.tables.extra_cost", Mock(return_value=costs))


def cells(groups: list[Group], *columns: str) -> list[list[str]]:
    """The text of some columns of the table."""
    header, _, *lines = format_table(result_table(groups), "markdown").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines)]
    return [[row[rows[0].index(column)] for column in columns] for row in rows[1:]]


def test_a_table_of_three_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Box AP 30, 31, 32 without blocks and 31, 31.5, 33.4 with them: 1.0, 0.5 and 1.4 more."""
    runs = []
    for seed, base, nl in ((0, 30.0, 31.0), (1, 31.0, 31.5), (2, 32.0, 33.4)):
        runs.append(run(tmp_path / f"base_{seed}", seed, base, seconds=3600 + 60 * seed))
        code = ("a", "b") if seed < 2 else ("b",)
        runs.append(run(tmp_path / f"nl_{seed}", seed, nl, code=code, seconds=None))
    groups = group_runs(runs)
    # 1.0, 0.5, 1.4: 2.9 / 3; squared deviations 0.0011 + 0.2178 + 0.1878, halved and rooted.
    rows = result_table(groups)
    assert cells(groups, "blocks", "runs", "box AP", "box AP50", "training time", "commit") == [
        ["baseline", "3 seeds", "31.0 ± 1.0", "50.0 ± 0.0", "1:01:00", "abc"],
        ["+1 NL in res4", "3 seeds", "32.0 ± 1.3", "50.0 ± 0.0", "", "a, b"],
        ["difference", "3 seeds", "+0.97 ± 0.45", "+0.00 ± 0.00", "", "a, abc, b"],
    ]
    costs = cells(groups, "multiply-adds", "parameters")
    assert costs == [["", ""], ["", ""], ["+10.0 G (+5.0%)", "+2.10 M (+5.2%)"]]
    assert "Mask R-CNN R18-FPN  100 x 4 images  shapes_val   difference" in format_table(rows, "text")
    *_, difference = csv.DictReader(io.StringIO(format_table(rows, "csv")))
    columns = "model,steps,tested on,blocks,runs,box AP,box AP spread,box AP50,box AP50 spread,box AP75"
    columns += ",box AP75 spread,multiply-adds,parameters,training time,commit"
    assert ",".join(difference) == columns
    assert (difference["box AP"], difference["box AP spread"]) == ("0.9667", "0.4509")
    uncounted = Mock(side_effect=UserError("This model cannot be counted."))
    monkeypatch.setattr("nl_detectron_cli.result_tables.tables.extra_cost", uncounted)
    assert "multiply-adds" not in format_table(result_table(groups), "text")


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    base, nl = (run(tmp_path / name, 1, ap, task="bbox_TTA") for name, ap in (("base", 30.04), ("nl", 29.0)))
    rows = [["1 seed", "30.0", "30.0"], ["1 seed", "29.0", "29.0"], ["1 seed", "-1.04", "-1.04"]]
    assert cells(group_runs([base, nl]), "runs", "box AP", "box TTA AP") == rows


def test_a_variant_with_fewer_seeds_has_the_baseline_of_its_own_seeds(tmp_path: Path) -> None:
    """So that a difference is always the one between the rows above it."""
    runs = [run(tmp_path / f"base_{seed}", seed, 30.0 + seed) for seed in (1, 2)]
    runs += [run(tmp_path / f"nl_{seed}", seed, 33.0) for seed in (1, 2)]
    runs += [run(tmp_path / "nl_dot", 2, 34.0, "MODEL.NON_LOCAL.PAIRWISE", "dot_product")]
    assert cells(group_runs(runs), "blocks", "box AP") == [
        ["baseline", "31.5 ± 0.7"],
        ["+1 NL in res4", "33.0 ± 0.0"],
        ["difference", "+1.50 ± 0.71"],
        ["baseline", "32.0"],
        ["+1 NL in res4, PAIRWISE dot_product", "34.0"],
        ["difference", "+2.00"],
    ]


def coco(tmp_path: Path, *options: str, config: str = R50_NL, images: dict = COCO) -> list[list[str]]:
    """The rows of a pair on COCO, with the names that a training fills in."""
    options += ("MODEL.CLASS_NAMES", "['person', 'bicycle']")
    base = run(tmp_path / "base", 1, 37.0, *options, config=R50, task="segm", images=images)
    nl = run(tmp_path / "nl", 1, 38.5, *options, config=config, task="segm", images=images)
    return cells(group_runs([base, nl]), "blocks", "runs", "box AP", "mask AP")


def test_the_papers_values_stand_below_its_rows(tmp_path: Path) -> None:
    rows = [
        ["baseline", "1 seed", "37.0", "37.0"],
        ["baseline", "the paper's", "38.0", "34.6"],
        ["+1 NL in res4", "1 seed", "38.5", "38.5"],
        ["+1 NL in res4", "the paper's", "39.0", "35.5"],
        ["difference", "1 seed", "+1.50", "+1.50"],
        ["difference", "the paper's", "+1.0", "+0.9"],
    ]
    assert coco(tmp_path) == rows
    dot_product = coco(tmp_path / "dot", config="Ablations/mask_rcnn_R_50_FPN_nl_dot_product_1x.yaml")
    assert [row for row in dot_product if row[1] == "the paper's"] == rows[1:2]


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (COCO | {"coco_2017_val": 50}, ()),
        (COCO, ("MODEL.RESNETS.NORM", "BN")),
        (COCO, ("INPUT.MIN_SIZE_TEST", "400")),
        pytest.param(COCO | {"coco_2017_train": 500}, (), marks=pytest.mark.slow),
    ],
)
def test_the_paper_has_no_value_for_anything_else(images: dict, options: tuple, tmp_path: Path) -> None:
    assert {owner for _, owner, *_ in coco(tmp_path, *options, images=images)} == {"1 seed"}


def test_rows_of_the_paper_that_were_trained_take_their_place(tmp_path: Path) -> None:
    images = {"keypoints_coco_2017_train": 118287, "keypoints_coco_2017_val": 5000}
    configs = {"base": KEYPOINT_NL.replace("_nl_head_backbone", ""), "nl": KEYPOINT_NL}
    runs = [run(tmp_path / k, config=c, task="keypoints", images=images) for k, c in configs.items()]
    (tmp_path / "page.md").write_text(PLACE.format("keypoint"))
    page = filled_in(tmp_path / "page.md", group_runs(runs)).decode()
    rows = [[cell.strip() for cell in line.split("|")][4:6] for line in page.splitlines()[3:-1]]
    assert rows[1::2] == [[blocks, "the paper's"] for blocks, _ in rows[::2]]
    assert rows[::2] == [
        ["baseline", "1 seed"],
        ["+4 NL in head, +1 NL in res4", "1 seed"],
        ["difference", "1 seed"],
        ["+4 NL in head", "not trained"],
    ]


def test_the_tables_of_the_documentation_are_these() -> None:
    """Until one of their rows is trained."""
    page = (ROOT / "docs" / "reproducing.md").read_text()
    for configs in (TABLE_5, TABLE_6):
        assert format_table(result_table([], [*configs]), "markdown") in page


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results:mask -->\n" + PLACE.format("keypoint"),
        PLACE.format("masks"),
        PLACE.format("box") + "<!-- results:mask-->\n<!-- /results -->",
    ],
)
def test_places_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(UserError, match="page.md needs places for tables: a line <!-- results:keypoint -->"):
        filled_in(tmp_path / "page.md", [])


def test_runs_that_do_not_belong_there(tmp_path: Path) -> None:
    page, base = tmp_path / "page.md", run(tmp_path / "base")
    page.write_text(PLACE.format("mask"))
    with pytest.raises(UserError, match="page.md has no place <!-- results:box --> for .*/base."):
        filled_in(page, group_runs([base, run(tmp_path / "nl")]))
    page.write_text(PLACE.format("box"))
    with pytest.raises(UserError, match="nl_nan has an AP of nan, which is no result. Train for longer."):
        filled_in(page, group_runs([base, run(tmp_path / "nl_nan", 1, float("nan"))]))


def test_curves(tmp_path: Path) -> None:
    """Two seeds; the second one was also evaluated after 50 steps, under iteration 49."""
    runs = []
    for seed in (1, 2):
        for name, gain in (("base", 0.0), ("nl", 1.0)):
            runs.append(run(tmp_path / f"{name}_{seed}", seed, 30.0 + seed + gain))
            history = runs[-1].history
            history[100]["total_loss"] = 1.0
            history[99] = {"total_loss": 2.0 + seed}
            if seed == 2:
                history[49] = {"total_loss": 3.0, "bbox/AP": 20.0}
    figure = plot_curves(group_runs(runs))
    loss, ap = figure.axes
    assert loss.get_title(loc="left") == "Mask R-CNN R18-FPN, 100 x 4 images, shapes_val"
    legend = [text.get_text() for text in ap.get_legend().get_texts()]
    assert legend == ["baseline, 2 seeds", "+1 NL in res4, 2 seeds"]
    points = {ax.get_ylabel(): [line.get_xydata().tolist() for line in ax.lines] for ax in figure.axes}
    losses = [[[99, 3], [100, 1]], [[49, 3], [99, 4], [100, 1]], [[99, 3.5], [100, 1]]]
    without = [[[100, 31]], [[49, 20], [100, 32]], [[100, 31.5]]]
    gained = [[[100, 32]], [[49, 20], [100, 33]], [[100, 32.5]]]
    assert points == {"total loss": losses + losses, "box AP": without + gained}
    colours = [line.get_color() for line in ap.lines]
    assert len({*colours[:3]}) == len({*colours[3:]}) == 1 != len({*colours})
