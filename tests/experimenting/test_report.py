"""The report: its tables are what the trainings say, and say what is not there."""

from pathlib import Path

import pytest
from experimenting import report
from experimenting.matrix import ARMS, Training
from experimenting.report import Runs, draw_curves, read_all, summary, table, write_report
from made_up_runs import finished, write_log, write_metrics

from nl_detectron.analysis import Counts
from nl_detectron.errors import UserError

ARM = {arm.path: arm for arm in ARMS}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two seeds of the baseline, two of the block, one of them without baseline; and one keypoint arm."""
    for path, seed, far, near in (
        ("mask/baseline", 1, 40.0, 80.0),
        ("mask/baseline", 2, 42.0, 81.0),
        ("mask/nl_res4", 1, 70.0, 80.5),
        ("mask/nl_res4", 2, 76.0, 80.5),
        ("mask/nl_res4", 3, 73.0, 80.5),
    ):
        trained(tmp_path, path, seed, bbox=(far, near), segm=(far - 1, near - 1))
    trained(tmp_path, "keypoint/nl_head", 1, bbox=(50.0, 51.0), keypoints=(20.0, 90.0))
    unfinished = tmp_path / "mask" / "gn" / "seed_1"
    write_log(unfinished, f"quick_schedules/{ARM['mask/gn'].config}")
    write_metrics(unfinished, 50)
    return tmp_path


def trained(output: Path, path: str, seed: int, **scores: tuple[float, float]) -> None:
    """A finished training with the AP of far and of near pictures."""
    arm, kind = ARM[path], "keypoints_" * path.startswith("keypoint")
    by_set = {
        f"{kind}shapes_{where}_val/{task}": (values[k], 0.0, 0.0)
        for task, values in scores.items()
        for k, where in enumerate(("far", "near"))
    }
    options = (*arm.keys, "SEED", str(seed))
    folder = output / Training(arm, seed).folder
    finished(folder, f"quick_schedules/{arm.config}", *options, scores=by_set, time="0:17:00")


@pytest.fixture(autouse=True)
def _cheap_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(arm: object) -> Counts:
        is_baseline = arm.name == "baseline"
        return Counts(2_000_000, 1_000_000_000, 1) if is_baseline else Counts(2_100_000, 1_020_000_000, 1)

    monkeypatch.setattr(report, "count", count)


def row_of(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_differences_are_paired_by_seed(output: Path) -> None:
    """Means 41 and 73; the pairs differ by 30 and 34, as the third seed has no baseline."""
    text = table("mask", read_all(output))
    assert [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")] == [
        "arm", "seeds", "far: box AP", "far: mask AP", "near: box AP", "near: mask AP",
        "multiply-adds", "parameters",
    ]  # fmt: skip
    assert row_of(text, "baseline") == [
        "baseline", "1, 2", "41.0 ± 1.4", "40.0 ± 1.4", "80.5 ± 0.7", "79.5 ± 0.7", "1.00 G", "2.00 M",
    ]  # fmt: skip
    assert row_of(text, "+1 NL in res4") == [
        "+1 NL in res4", "1, 2, 3", "73.0 ± 3.0 (+32.0 ± 2.8)", "72.0 ± 3.0 (+32.0 ± 2.8)",
        "80.5 ± 0.0 (+0.0 ± 0.7)", "79.5 ± 0.0 (+0.0 ± 0.7)", "+2.0%", "+5.0%",
    ]  # fmt: skip


def test_what_is_not_finished(output: Path) -> None:
    """Each arm of the task has its row."""
    text = table("mask", read_all(output))
    assert len(text.splitlines()) == 2 + sum(arm.task == "mask" for arm in ARMS)
    assert row_of(text, "GN after W_z") == ["GN after W_z", "not trained", *[""] * 6]


def test_an_arm_without_baseline_has_no_differences(output: Path) -> None:
    text = table("keypoint", read_all(output))
    assert row_of(text, "baseline")[1] == "not trained"
    assert row_of(text, "+4 NL in head") == [
        "+4 NL in head", "1", "20.0", "50.0", "90.0", "51.0", "+2.0%", "+5.0%",
    ]  # fmt: skip


def test_summary(output: Path) -> None:
    assert summary(read_all(output)) == (
        "6 of the 48 trainings of the matrix are finished, of abc. One took 0:17:00 (the median of the 6 "
        "that were not interrupted)."
    )


def test_curves(output: Path) -> None:
    """Rows of the tasks; the loss, and the score that needs the disc, far and near."""
    figure = draw_curves(read_all(output))
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "loss_cls, near and far together", "box AP, far", "box AP, near",
        "loss_keypoint, near and far together", "keypoint AP, far", "keypoint AP, near",
    ]  # fmt: skip
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["baseline, 2 seeds", "+1 NL in res4, 3 seeds"]
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [
        [40.0], [42.0], [41.0], [70.0], [76.0], [73.0], [73.0],
    ]  # fmt: skip


def test_places_in_a_page(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Runs] = []
    monkeypatch.setattr(report, "attention_table", lambda runs, _: seen.append(runs) or "| looks |")
    monkeypatch.setattr(report, "draw_attention", lambda *_: [("front", draw_curves(seen[0]))])
    page = output / "page.md"
    place = "<!-- results:{} -->\nold\n<!-- /results -->\n"
    places = map(place.format, ("summary", "keypoint", "attention"))
    page.write_text("# Ours\n" + "".join(places) + "end\n")
    write_report(output, page)
    text = page.read_text()
    assert text.startswith("# Ours\n<!-- results:summary -->\n6 of the 48 ")
    assert text.endswith("<!-- results:attention -->\n| looks |\n<!-- /results -->\nend\n")
    assert "old" not in text
    for name in ("page_curves.png", "page_attention_front.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_nothing_to_report(output: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty, page = tmp_path_factory.mktemp("empty"), output / "page.md"
    page.write_text("<!-- results:mask -->\n<!-- /results -->\n")
    with pytest.raises(UserError, match="--output must have finished trainings to report; .* has none"):
        write_report(empty, page)
    page.write_text("<!-- results:masks -->\n<!-- /results -->\n")
    with pytest.raises(UserError, match="results:summary -->, .*; got \\['masks'\\] of 1"):
        write_report(output, page)
