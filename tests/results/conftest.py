"""What the tests of the tables share."""

import pytest
from detectron2.config import CfgNode

from nl_detectron.inspect.analysis import Counts


@pytest.fixture
def no_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of any blocks is the same, as counting a model takes seconds."""

    def extra_cost(cfg: CfgNode, *sizes: int) -> tuple[Counts, Counts]:
        return Counts(40_000_000, 200_000_000_000, 1), Counts(42_100_000, 210_000_000_000, 2)

    monkeypatch.setattr("nl_detectron.results.tables.extra_cost", extra_cost)
