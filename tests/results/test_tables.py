"""The arithmetic of the table, by hand, and where the paper's values stand."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_up_runs import COCO, MASK, MASK_NL, finished

from nl_detectron.errors import UserError
from nl_detectron.results import Comparison, Run, format_table, pair_runs, result_table

R50 = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
R50_NL = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml"
DOT_PRODUCT = ("MODEL.NON_LOCAL.PAIRWISE", "dot_product")
pytestmark = pytest.mark.usefixtures("no_counting")


def run(folder: Path, config: str, seed: int, *aps: float, task: str = "bbox", **log: object) -> Run:
    """A made-up run with these AP, AP50 and AP75; with one value, it is all three."""
    values: Sequence[float] = aps if len(aps) == 3 else aps * 3
    return finished(folder, config, "SEED", str(seed), scores={"bbox": values, task: values}, **log)


@pytest.fixture
def three_seeds(tmp_path: Path) -> list[Comparison]:
    """Box AP 30, 31, 32 without blocks and 31, 31.5, 33.4 with them: 1.0, 0.5 and 1.4 more."""
    pairs = zip((30.0, 31.0, 32.0), (31.0, 31.5, 33.4), strict=True)
    runs = []
    for seed, (base, nl) in enumerate(pairs):
        runs += [
            run(tmp_path / f"base_{seed}", MASK, seed, base, 50.0, 20.0, time=f"1:0{seed}:00"),
            run(
                tmp_path / f"nl_{seed}", MASK_NL, seed, nl, 50.0, 20.0, code=f"git revision {'ab'[seed > 1]}"
            ),
        ]
    return pair_runs(runs)


def test_mean_and_spread_over_the_seeds(three_seeds: list[Comparison]) -> None:
    base, nl, difference = result_table(three_seeds)
    assert [row["runs"] for row in (base, nl, difference)] == ["3 seeds"] * 3
    # 1.0, 0.5, 1.4: 2.9 / 3; squared deviations 0.0011 + 0.2178 + 0.1878, halved and rooted.
    assert difference["box AP"].mean == pytest.approx(0.9667, abs=5e-5)
    assert difference["box AP"].spread == pytest.approx(0.4509, abs=5e-5)
    columns = ("blocks", "box AP", "box AP50")
    assert [str(base[c]) for c in columns] == ["baseline", "31.0 ± 1.0", "50.0 ± 0.0"]
    assert [str(nl[c]) for c in columns] == ["+1 NL in res4", "32.0 ± 1.3", "50.0 ± 0.0"]
    assert [str(difference[c]) for c in columns] == ["difference", "+0.97 ± 0.45", "+0.00 ± 0.00"]


def test_time_code_and_cost(three_seeds: list[Comparison]) -> None:
    base, nl, difference = result_table(three_seeds)
    assert (base["training time"], base["commit"]) == ("1:01:00", "abc")
    assert nl["commit"] == "mixed: a, b"
    assert difference["commit"] == "mixed: a, abc, b"
    assert difference["multiply-adds"] == "+10.0 G (+5.0 %)"
    assert difference["parameters"] == "+2.10 M (+5.2 %)"
    assert not {"multiply-adds", "parameters"} & (base.keys() | nl.keys())


def test_a_model_that_cannot_be_counted_has_no_cost(
    three_seeds: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise UserError("not this model")

    monkeypatch.setattr("nl_detectron.results.tables.extra_cost", refuse)
    assert "multiply-adds" not in format_table(result_table(three_seeds))


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    runs = [run(tmp_path / "base", MASK, 1, 30.04), run(tmp_path / "nl", MASK_NL, 1, 29.0)]
    base, _, difference = result_table(pair_runs(runs))
    assert (base["runs"], str(base["box AP"])) == ("1 seed", "30.0")
    assert (difference["runs"], str(difference["box AP"])) == ("1 seed", "-1.04")


def test_a_variant_with_fewer_seeds_has_the_baseline_of_its_own_seeds(tmp_path: Path) -> None:
    """So that a difference is always the one between the rows above it."""
    runs = [run(tmp_path / f"base_{seed}", MASK, seed, 30.0 + seed) for seed in (1, 2)]
    runs += [run(tmp_path / f"nl_{seed}", MASK_NL, seed, 33.0) for seed in (1, 2)]
    scores = {"bbox": (34.0, 34.0, 34.0)}
    runs += [finished(tmp_path / "dot", MASK_NL, *DOT_PRODUCT, "SEED", "2", scores=scores)]
    shown = [(row["blocks"], str(row["box AP"])) for row in result_table(pair_runs(runs))]
    assert shown == [
        ("baseline", "31.5 ± 0.7"),
        ("+1 NL in res4", "33.0 ± 0.0"),
        ("difference", "+1.50 ± 0.71"),
        ("baseline", "32.0"),
        ("+1 NL in res4, PAIRWISE dot_product", "34.0"),
        ("difference", "+2.00"),
    ]


def coco(
    tmp_path: Path, config: str, images: tuple[int, int] = COCO, **log: object
) -> list[tuple[str, str, str]]:
    """The rows of a pair on COCO: whose they are, box AP and mask AP."""
    base = run(tmp_path / "base", R50, 1, 37.0, task="segm", images=images)
    nl = run(tmp_path / "nl", config, 1, 38.5, task="segm", images=images)
    rows = result_table(pair_runs([base, nl]))
    return [(row["blocks"], row["runs"], f"{row['box AP']}, {row['mask AP']}") for row in rows]


def test_the_papers_values_stand_below_its_rows(tmp_path: Path) -> None:
    assert coco(tmp_path, R50_NL) == [
        ("baseline", "1 seed", "37.0, 37.0"),
        ("baseline", "the paper's", "38.0, 34.6"),
        ("+1 NL in res4", "1 seed", "38.5, 38.5"),
        ("+1 NL in res4", "the paper's", "39.0, 35.5"),
        ("difference", "1 seed", "+1.50, +1.50"),
        ("difference", "the paper's", "+1.0, +0.9"),
    ]


def test_the_papers_row_by_another_index(tmp_path: Path) -> None:
    scores = {"bbox": (37.0, 37.0, 37.0)}
    index = ("MODEL.NON_LOCAL.RES4", "[5]")
    runs = [
        finished(tmp_path / "base", R50, scores=scores, images=COCO),
        finished(tmp_path / "nl", R50_NL, *index, scores=scores, images=COCO),
    ]
    assert [row["runs"] for row in result_table(pair_runs(runs))] == ["1 seed", "the paper's"] * 3


@pytest.mark.parametrize("images", [(118287, 50), (500, 5000)])
def test_the_paper_has_no_value_for_a_subset(images: tuple[int, int], tmp_path: Path) -> None:
    assert {owner for _, owner, _ in coco(tmp_path, R50_NL, images)} == {"1 seed"}


def test_the_paper_has_no_value_for_other_blocks(tmp_path: Path) -> None:
    rows = coco(tmp_path, "Ablations/mask_rcnn_R_50_FPN_nl_dot_product_1x.yaml")
    assert [blocks for blocks, owner, _ in rows if owner == "the paper's"] == ["baseline"]


@pytest.mark.parametrize(
    "options",
    [
        ("MODEL.RESNETS.NORM", "BN"),
        ("DATASETS.TRAIN", "('coco_2017_val',)"),
        ("INPUT.MIN_SIZE_TEST", "400"),
    ],
)
def test_the_paper_has_no_value_for_another_setting(options: tuple[str, str], tmp_path: Path) -> None:
    scores = {"bbox": (37.0, 37.0, 37.0)}
    runs = [finished(tmp_path / c[-11:], c, *options, scores=scores, images=COCO) for c in (R50, R50_NL)]
    assert {row["runs"] for row in result_table(pair_runs(runs))} == {"1 seed"}


def test_a_set_that_is_not_cocos(tmp_path: Path) -> None:
    runs = [run(tmp_path / c[-15:], c, 1, 30.0, images=COCO) for c in (MASK, MASK_NL)]
    assert {row["runs"] for row in result_table(pair_runs(runs))} == {"1 seed"}


def test_what_tells_settings_of_the_same_model_apart(tmp_path: Path) -> None:
    scores = {"bbox": (30.0, 50.0, 20.0)}
    runs = [
        finished(tmp_path / f"{value}{config[-15:]}", config, "SOLVER.GAMMA", value, scores=scores)
        for value in ("0.1", "0.5")
        for config in (MASK, MASK_NL)
    ]
    models = [row["model"] for row in result_table(pair_runs(runs))]
    assert (
        models == ["Mask R-CNN R18-FPN, SOLVER.GAMMA 0.1"] * 3 + ["Mask R-CNN R18-FPN, SOLVER.GAMMA 0.5"] * 3
    )


def test_formats(three_seeds: list[Comparison]) -> None:
    rows = result_table(three_seeds)
    header, _, base, *_ = format_table(rows, "markdown").splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "model", "steps", "tested on", "blocks", "runs", "box AP", "box AP50", "box AP75",
        "multiply-adds", "parameters", "training time", "commit",
    ]  # fmt: skip
    assert base.startswith(
        "| Mask R-CNN R18-FPN | 100 x 4 images | shapes_val  | baseline      | 3 seeds | 31.0 ± 1.0"
    )
    assert "Mask R-CNN R18-FPN  100 x 4 images  shapes_val   difference" in format_table(rows)
    *_, difference = csv.DictReader(io.StringIO(format_table(rows, "csv")))
    assert (difference["box AP"], difference["box AP spread"]) == ("0.9667", "0.4509")


def test_test_time_augmentation_has_its_own_columns(tmp_path: Path) -> None:
    runs = [run(tmp_path / c[-15:], c, 1, 30.0, task="bbox_TTA") for c in (MASK, MASK_NL)]
    assert str(result_table(pair_runs(runs))[0]["box TTA AP"]) == "30.0"
