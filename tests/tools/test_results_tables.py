"""The parts of tools/results.py: pairs, names, the table's arithmetic by hand, the paper's rows, curves."""

import csv
import io
from pathlib import Path

import detectron2.model_zoo
import pytest
from detectron2.config import CfgNode
from made_up_runs import MASK, MASK_NL, command, config_with, finished, write_metrics, write_record
from result_tables.curves import plot_curves
from result_tables.pairing import Comparison, blocks_of, model_of, pair_runs, read_finished
from result_tables.paper import TABLE_5, TABLE_6
from result_tables.tables import format_table, result_table
from results import filled_in
from runs import ROOT

from nl_detectron import model_zoo
from nl_detectron.engine import Run
from nl_detectron.errors import UserError
from nl_detectron.inspect import Counts

R50 = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
R50_NL = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml"
KEYPOINT_NL = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml"
DOT_PRODUCT = ("MODEL.NON_LOCAL.PAIRWISE", "dot_product")
COCO = {"coco_2017_train": 118287, "coco_2017_val": 5000}
PLACE = "<!-- results:{} -->\n<!-- /results -->"


@pytest.fixture(autouse=True)
def _no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks cost the same, as counting a model takes seconds."""

    def extra_cost(cfg: CfgNode, *sizes: int) -> tuple[Counts, Counts]:
        return Counts(40_000_000, 200_000_000_000, 1), Counts(42_100_000, 210_000_000_000, 2)

    monkeypatch.setattr("result_tables.tables.extra_cost", extra_cost)


def run(
    folder: Path,
    seed: int = 1,
    ap: float = 30.0,
    *options: str,
    task: str = "bbox",
    config: str = "",
    images: dict[str, int] | None = None,
    processes: int = 1,
    code: tuple[str, ...] = ("abc",),
    seconds: int | None = 2,
) -> Run:
    """A made-up run with this AP for boxes and a task; with blocks if the folder's name begins with "nl"."""
    config = config or (MASK_NL if folder.name.startswith("nl") else MASK)
    cfg = config_with(config, ("SEED", str(seed), *options))
    if images is None:
        images = dict.fromkeys(cfg.DATASETS.TRAIN, 12) | dict.fromkeys(cfg.DATASETS.TEST, 6)
    scores = {
        f"{name}/{key}": value
        for name in ("bbox", task)
        for key, value in (("AP", ap), ("AP50", 50.0), ("AP75", 20.0))
    }
    return Run(folder, cfg, processes, images, code, seconds, True, {100: scores})


def refusal(*runs: Run) -> str:
    with pytest.raises(UserError) as refused:
        pair_runs(runs)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(f"{runs[0].folder.parent}/", "")


def names(comparisons: list[Comparison]) -> list[list[str]]:
    return [[run.folder.name for run in (*each.baselines, *each.runs)] for each in comparisons]


def cells(comparisons: list[Comparison], *columns: str) -> list[list[str]]:
    """The text of some columns of the table."""
    header, _, *lines = format_table(result_table(comparisons), "markdown").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *lines)]
    return [[row[rows[0].index(column)] for column in columns] for row in rows[1:]]


def test_pairs_have_the_same_seed(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, int(name[-1])) for name in ("nl_2", "base_1", "base_2", "nl_1")]
    runs.insert(1, run(tmp_path / "nl_dot_2", 2, 30.0, *DOT_PRODUCT))
    assert names(pair_runs(runs)) == [["base_1", "base_2", "nl_1", "nl_2"], ["base_2", "nl_dot_2"]]


def test_each_schedule_has_its_own_baseline(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / f"{name}_{gamma}", 1, 30.0, "SOLVER.GAMMA", gamma)
        for name in ("base", "nl")
        for gamma in ("0.1", "0.5")
    ]
    assert names(pair_runs(runs)) == [["base_0.1", "nl_0.1"], ["base_0.5", "nl_0.5"]]
    models = [row["model"] for row in result_table(pair_runs(runs))]
    assert models[:3] == ["Mask R-CNN R18-FPN, SOLVER.GAMMA 0.1"] * 3
    assert models[3:] == ["Mask R-CNN R18-FPN, SOLVER.GAMMA 0.5"] * 3


def test_what_the_nearest_has_instead_is_named(tmp_path: Path) -> None:
    nl = run(tmp_path / "nl", 1, 30.0, "SOLVER.BASE_LR", "0.01", "DATASETS.TRAIN", "('shapes_val',)")
    far = run(tmp_path / "far", 2, 30.0, "SOLVER.GAMMA", "0.5")
    assert refusal(nl, far, run(tmp_path / "base")) == (
        "nl has no baseline of the same setting and SEED beside it. The nearest, base, has DATASETS.TRAIN "
        '["shapes_train"] instead of ["shapes_val"], SOLVER.BASE_LR 0.02 instead of 0.01, images '
        '{"shapes_train": 12, "shapes_val": 6} instead of {"shapes_val": 6}.'
    )


def test_what_no_key_tells_is_compared_too(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", processes=8), run(tmp_path / "nl_segm", task="segm")
    message = refusal(nl, base)
    assert "The nearest, base, has processes 8 instead of 1, evaluation " in message
    assert message.endswith('"segm/AP", "segm/AP50", "segm/AP75"].')


def test_without_a_partner(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", 1), run(tmp_path / "nl", 2)
    rule = "of the same setting and SEED beside it."
    assert refusal(nl) == f"nl has no baseline {rule} Train one, or leave this out."
    assert refusal(base) == f"base has no run with non-local blocks {rule} Train one, or leave this out."
    message = f"base has no run with non-local blocks {rule} The nearest, nl, has SEED 2 instead of 1."
    assert refusal(base, nl) == refusal(base, nl, run(tmp_path / "base_2", 2)) == message


def test_the_same_training_twice(tmp_path: Path) -> None:
    runs = [run(tmp_path / name) for name in ("nl_one", "nl_other")]
    assert refusal(*runs) == "nl_one and nl_other are both +1 NL in res4 with SEED 1. Leave one out."


@pytest.mark.parametrize(("last", "is_finished"), [(0, False), (59, False), (100, False), (99, True)])
def test_an_unfinished_training(tmp_path: Path, last: int, is_finished: bool) -> None:
    """At its start, later, in the last evaluation; and one whose last metrics are gone."""
    write_record(tmp_path, finished=is_finished)
    write_metrics(tmp_path, last, bbox=(1.0, 2.0, 3.0))
    with pytest.raises(UserError) as refused:
        read_finished(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is not finished: its last metrics are of iteration {last}, and iteration 100 is "
        "not evaluated. Continue it with train_net.py --resume."
    )


def test_trainings_that_are_not_one(tmp_path: Path) -> None:
    sets = ("DATASETS.TEST", "('shapes_val', 'shapes_train')")
    finished(tmp_path / "two", MASK, *sets, scores={"shapes_val/bbox": (1.0, 2.0, 3.0)})
    with pytest.raises(UserError, match="two was tested on 2 data sets. Only runs with one are compared."):
        read_finished(tmp_path / "two")
    finished(tmp_path / "changed", MASK, scores={"bbox": (1.0, 2.0, 3.0)})
    write_record(
        tmp_path / "changed", commands=[command(), command(start=40, changed=["SEED was 2 and is 1"])]
    )
    with pytest.raises(UserError, match="changed was resumed as another training: SEED was 2 and is 1."):
        read_finished(tmp_path / "changed")


def test_names_of_blocks() -> None:
    expected = {
        R50: "baseline",
        KEYPOINT_NL: "+4 NL in head, +1 NL in res4",
        "Ablations/mask_rcnn_R_50_FPN_nl_5_blocks_1x.yaml": "+2 NL in res3 [2, 4], +3 NL in res4 [2, 4, 6]",
        "Ablations/mask_rcnn_R_50_FPN_nl_no_scale_1x.yaml": "+1 NL in res4, SCALE False",
        "Ablations/mask_rcnn_R_50_FPN_nl_res2_1x.yaml": "+1 NL in res2",
    }
    for config, blocks in expected.items():
        assert blocks_of(model_zoo.get_config(config)) == blocks
    cfg = model_zoo.get_config(KEYPOINT_NL.replace("_backbone", ""))
    cfg.MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY = 8
    assert blocks_of(cfg) == "+1 NL in head, KEYPOINT_HEAD_EVERY 8"


def test_names_of_models() -> None:
    assert model_of(model_zoo.get_config(KEYPOINT_NL)) == "Keypoint R-CNN R101-FPN"
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_3x.yaml")
    assert model_of(cfg) == "Mask R-CNN X152-FPN"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "RetinaNet", "build_of_mine"
    assert model_of(cfg) == "RetinaNet build_of_mine"
    for config, model in (
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "Mask R-CNN R50-FPN CascadeROIHeads"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", "Mask R-CNN R50 Res5ROIHeads"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "Faster R-CNN R50-FPN"),
        ("Misc/semantic_R_50_FPN_1x.yaml", "SemanticSegmentor R50-FPN"),
    ):
        assert model_of(detectron2.model_zoo.get_config(config)) == model


@pytest.fixture
def three_seeds(tmp_path: Path) -> list[Comparison]:
    """Box AP 30, 31, 32 without blocks and 31, 31.5, 33.4 with them: 1.0, 0.5 and 1.4 more."""
    runs = []
    for seed, base, nl in ((0, 30.0, 31.0), (1, 31.0, 31.5), (2, 32.0, 33.4)):
        runs.append(run(tmp_path / f"base_{seed}", seed, base, seconds=3600 + 60 * seed))
        code = ("a", "b") if seed < 2 else ("b",)
        runs.append(run(tmp_path / f"nl_{seed}", seed, nl, code=code, seconds=None))
    return pair_runs(runs)


def test_a_table_of_three_seeds(three_seeds: list[Comparison], monkeypatch: pytest.MonkeyPatch) -> None:
    # 1.0, 0.5, 1.4: 2.9 / 3; squared deviations 0.0011 + 0.2178 + 0.1878, halved and rooted.
    *_, difference = rows = result_table(three_seeds)
    assert difference["box AP"] == pytest.approx(0.9667, abs=5e-5)
    assert difference["box AP spread"] == pytest.approx(0.4509, abs=5e-5)
    assert cells(three_seeds, "blocks", "runs", "box AP", "box AP50", "training time", "commit") == [
        ["baseline", "3 seeds", "31.0 ± 1.0", "50.0 ± 0.0", "1:01:00", "abc"],
        ["+1 NL in res4", "3 seeds", "32.0 ± 1.3", "50.0 ± 0.0", "", "a, b"],
        ["difference", "3 seeds", "+0.97 ± 0.45", "+0.00 ± 0.00", "", "a, abc, b"],
    ]
    costs = cells(three_seeds, "multiply-adds", "parameters")
    assert costs == [["", ""], ["", ""], ["+10.0 G (+5.0%)", "+2.10 M (+5.2%)"]]
    assert "Mask R-CNN R18-FPN  100 x 4 images  shapes_val   difference" in format_table(rows, "text")
    *_, difference = csv.DictReader(io.StringIO(format_table(rows, "csv")))
    columns = "model,steps,tested on,blocks,runs,box AP,box AP spread,box AP50,box AP50 spread,box AP75"
    columns += ",box AP75 spread,multiply-adds,parameters,training time,commit"
    assert ",".join(difference) == columns
    assert (difference["box AP"], difference["box AP spread"]) == ("0.9667", "0.4509")

    def refuse(*arguments: object) -> None:
        raise UserError("This model cannot be counted.")

    monkeypatch.setattr("result_tables.tables.extra_cost", refuse)
    assert "multiply-adds" not in format_table(result_table(three_seeds), "text")


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    base, nl = (
        run(tmp_path / "base", 1, 30.04, task="bbox_TTA"),
        run(tmp_path / "nl", 1, 29.0, task="bbox_TTA"),
    )
    rows = [["1 seed", "30.0", "30.0"], ["1 seed", "29.0", "29.0"], ["1 seed", "-1.04", "-1.04"]]
    assert cells(pair_runs([base, nl]), "runs", "box AP", "box TTA AP") == rows
    nothing = run(tmp_path / "nl_nothing", 1, float("nan"), task="bbox_TTA")
    assert cells(pair_runs([base, nothing]), "box AP") == [["30.0"], ["nan"], ["+nan"]]


def test_a_variant_with_fewer_seeds_has_the_baseline_of_its_own_seeds(tmp_path: Path) -> None:
    """So that a difference is always the one between the rows above it."""
    runs = [run(tmp_path / f"base_{seed}", seed, 30.0 + seed) for seed in (1, 2)]
    runs += [run(tmp_path / f"nl_{seed}", seed, 33.0) for seed in (1, 2)]
    runs += [run(tmp_path / "nl_dot", 2, 34.0, *DOT_PRODUCT)]
    assert cells(pair_runs(runs), "blocks", "box AP") == [
        ["baseline", "31.5 ± 0.7"],
        ["+1 NL in res4", "33.0 ± 0.0"],
        ["difference", "+1.50 ± 0.71"],
        ["baseline", "32.0"],
        ["+1 NL in res4, PAIRWISE dot_product", "34.0"],
        ["difference", "+2.00"],
    ]


def coco(
    tmp_path: Path, *options: str, config: str = R50_NL, images: dict[str, int] = COCO
) -> list[list[str]]:
    """The rows of a pair on COCO."""
    base = run(tmp_path / "base", 1, 37.0, *options, config=R50, task="segm", images=images)
    nl = run(tmp_path / "nl", 1, 38.5, *options, config=config, task="segm", images=images)
    return cells(pair_runs([base, nl]), "blocks", "runs", "box AP", "mask AP")


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
        pytest.param({}, (), marks=pytest.mark.slow),
        pytest.param(COCO, ("DATASETS.TRAIN", "('coco_2017_val',)"), marks=pytest.mark.slow),
    ],
)
def test_the_paper_has_no_value_for_anything_else(
    images: dict[str, int], options: tuple[str, ...], tmp_path: Path
) -> None:
    assert {owner for _, owner, *_ in coco(tmp_path, *options, images=images)} == {"1 seed"}


def test_rows_of_the_paper_that_were_trained_take_their_place(tmp_path: Path) -> None:
    images = {"keypoints_coco_2017_train": 118287, "keypoints_coco_2017_val": 5000}
    configs = {"base": KEYPOINT_NL.replace("_nl_head_backbone", ""), "nl": KEYPOINT_NL}
    runs = [run(tmp_path / k, config=c, task="keypoints", images=images) for k, c in configs.items()]
    (tmp_path / "page.md").write_text(PLACE.format("keypoint"))
    page = filled_in(tmp_path / "page.md", pair_runs(runs)).decode()
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
        "",
        "<!-- results:mask -->\n",
        "<!-- results:mask -->\n" + PLACE.format("keypoint"),
        PLACE.format("masks"),
        PLACE.format("box") + "<!-- results:mask-->\n<!-- /results -->",
    ],
    ids=["none", "no end", "one without end", "unknown", "misspelt"],
)
def test_places_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(UserError, match="page.md needs places for tables: a line <!-- results:keypoint -->"):
        filled_in(tmp_path / "page.md", [])


def test_runs_that_do_not_belong_there(tmp_path: Path) -> None:
    page, base = tmp_path / "page.md", run(tmp_path / "base")
    page.write_text(PLACE.format("mask"))
    with pytest.raises(UserError, match="page.md has no place <!-- results:box --> for .*/nl."):
        filled_in(page, pair_runs([base, run(tmp_path / "nl")]))
    page.write_text(PLACE.format("box"))
    with pytest.raises(UserError, match="nl_nan has an AP of nan, which is no result. Train for longer."):
        filled_in(page, pair_runs([base, run(tmp_path / "nl_nan", 1, float("nan"))]))


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
    figure = plot_curves(pair_runs(runs))
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
