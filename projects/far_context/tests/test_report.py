"""The report in a page, and its pictures."""

import re
from pathlib import Path

import pytest
from far_context import report
from far_context.drawings import draw_curves
from far_context.evaluation import Evaluation
from far_context.folder import Experiment
from far_context.matrix import GROUPS, PROJECT
from far_context.report import summary, write_report
from far_context.results import Results, read_results
from far_context.tables import attention_table, group_table, trainings_table
from made_up_trainings import Train, make_up, results_in

from nl_detectron.errors import UserError

README = PROJECT / "README.md"


@pytest.fixture
def trained(experiment: Experiment, train: Train, cheap_counting: None) -> Results:
    for seed, far in ((1, 40.0), (2, 42.0)):
        train(f"mask/baseline/seed_{seed}", bbox=(far, 80.0), segm=(39.0, 79.0))
        train(f"mask/nl_res4/seed_{seed}", bbox=(far + 30, 80.0), segm=(69.0, 79.0))
    train("keypoint/nl_head/seed_1", bbox=(50.0, 51.0), keypoints=(20.0, 90.0))
    return results_in(experiment, lambda training: Evaluation([[1], [0]], [False, False]))


def test_curves(trained: Results) -> None:
    """The loss, and the score that needs the disc, far and near; no row for groups of one."""
    figure = draw_curves(trained)
    labels = ["loss_cls in training, far and near", "box AP, far", "box AP, near"]
    assert [axes.get_ylabel() for axes in figure.axes] == labels
    assert figure.axes[0].get_title(loc="left") == "Mask R-CNN"
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["baseline, 2 seeds", "+1 NL in res4, 2 seeds"]
    curves = [line.get_ydata().tolist() for line in figure.axes[1].lines]
    assert curves == [[40.0], [42.0], [41.0], [70.0], [72.0], [71.0]]


def test_curves_of_one_arm(experiment: Experiment, train: Train) -> None:
    train("keypoint/nl_head/seed_1", bbox=(50.0, 51.0), keypoints=(20.0, 90.0))
    results = results_in(experiment, lambda training: Evaluation([[1], [0]]))
    assert [axes.get_ylabel() for axes in draw_curves(results).axes][1:] == [
        "keypoint AP, far",
        "keypoint AP, near",
    ]


def test_a_row_with_all_arms_of_another_takes_its_place(trained: Results, experiment: Experiment) -> None:
    """Of "places" the main pair is trained, which "forms" shows, too, with another form."""
    make_up(experiment, "mask/gaussian/seed_1", bbox=(40.0, 80.0), segm=(40.0, 80.0))
    results = results_in(experiment, lambda training: Evaluation([[1], [0]]))
    axes = draw_curves(results).axes
    assert [len(each.get_legend().get_texts()) for each in axes if each.get_legend()] == [3]


def test_places_in_a_page(
    experiment: Experiment, trained: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are filled; all else stays as it is."""
    monkeypatch.setattr(report, "draw_attention", lambda experiment: [("front", draw_curves(trained))])
    page = tmp_path / "page.md"
    place = "<!-- results:{} -->\nstale\n<!-- /results -->\n"
    page.write_text("# Ours\n" + place.format("summary") + "| kept |\n" + place.format("main") + "end\n")
    write_report(experiment, trained, page)
    text = page.read_text()
    assert text.startswith("# Ours\n<!-- results:summary -->\n5 of the ")
    assert "(the median of the 5 that were not killed).\n<!-- /results -->\n| kept |\n<!-- results:" in text
    assert "\n| baseline      | 1, 2    | 50, 50 " in text
    assert text.endswith("|\n<!-- /results -->\nend\n")
    assert "stale" not in text
    assert (tmp_path / "docs" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "docs" / "attention_front.jpg").read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# No places\n", "found 0 complete ones"),
        ("<!-- results:mask -->\n<!-- /results -->\n", "found 1 complete ones, unknown: mask"),
        ("<!-- results:main -->\n<!-- results:chance -->\n<!-- /results -->\n", "found 1 complete ones"),
    ],
)
def test_a_page_without_proper_places(text: str, found: str, experiment: Experiment, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=rf"page.md needs places, .* summary, main, .*; {found}\.$"):
        write_report(experiment, {}, page)
    assert page.read_text() == text


def test_a_report_of_nothing(experiment: Experiment, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- results:main -->\n<!-- /results -->\n")
    with pytest.raises(UserError, match=r"^--output .* holds no finished trainings\.$"):
        write_report(experiment, {}, page)


def test_the_readme_has_proper_places() -> None:
    report._places_in(README, README.read_text())


def test_the_readme_shows_the_results(cheap_counting: None) -> None:
    """Its tables are those of results.jsonl, but for the costs, which need models."""
    experiment = Experiment(PROJECT / "output", 800, 100)
    results = read_results(experiment, PROJECT / "results.jsonl")
    shown = dict(
        re.findall(r"<!-- results:(\w+) -->\n(.*?)\n<!-- /results -->", README.read_text(), re.DOTALL)
    )
    assert "main" in shown
    tables = {name: group_table(experiment, GROUPS[name], results) for name in shown if name in GROUPS}
    tables |= {"trainings": trainings_table(results), "attention": attention_table(results)}
    for name, table in tables.items():
        columns = -2 if name in GROUPS else None
        assert _cells(shown[name])[1:] != []
        assert [row[:columns] for row in _cells(shown[name])] == [row[:columns] for row in _cells(table)]
    assert summary(experiment, results) == shown["summary"]


def _cells(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [row for row in rows if not set(row[0]) <= {"-", ":"}]
