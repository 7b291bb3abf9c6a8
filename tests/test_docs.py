"""The documentation: links and commands are checked; slow tests run every block, as doc_blocks.py says."""

import ast
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from doc_blocks import Block, Reader, blocks_of
from nl_detectron_shapes import datasets_root
from runs import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
PROJECTS = sorted((ROOT / "projects").glob("*/README.md"))
BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language in ("bash", "python")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="session")
def datasets(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes, and COCO if it exists."""
    folder = tmp_path_factory.mktemp("datasets_of_docs")
    for path in shapes_root.iterdir():
        (folder / path.name).symlink_to(path)
    if (datasets_root() / "coco").is_dir():
        (folder / "coco").symlink_to((datasets_root() / "coco").resolve())
    return folder


@pytest.fixture(scope="session")
def reader_of(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Reader]:
    readers: dict[Path, Reader] = {}

    def reader(page: Path) -> Reader:
        if page not in readers:
            readers[page] = Reader(page, tmp_path_factory.mktemp(page.stem), datasets)
        return readers[page]

    return reader


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(
    block: Block, reader_of: Callable[[Path], Reader], datasets: Path, request: pytest.FixtureRequest
) -> None:
    if "needs COCO" in block.marks:
        request.getfixturevalue("coco_root")
    if block.missing_package:
        pytest.skip(f"needs the package {block.missing_package}")
    reader_of(block.page).read_to(block, has_coco=(datasets / "coco").is_dir())


@pytest.mark.parametrize("page", [*PAGES, *PROJECTS], ids=name_of)
def test_commands_name_existing_files_flags_and_keys(page: Path, datasets: Path, tmp_path: Path) -> None:
    Reader(page, tmp_path, datasets).check()


@pytest.mark.parametrize("page", [*PAGES, *PROJECTS], ids=name_of)
def test_python_imports_existing_names(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            imports = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.ImportFrom)]
            ours = [node for node in imports if node.module.startswith("nl_detectron")]
            for module, names in ((import_module(node.module), node.names) for node in ours):
                assert [name.name for name in names if not hasattr(module, name.name)] == [], str(block)


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    listed = re.findall(r"^\| \[(\S+\.md)\]\(\1\) \|", index, re.MULTILINE)
    assert sorted([*listed, "README.md"]) == [page.name for page in PAGES if page.parent == ROOT / "docs"]


@pytest.mark.parametrize("page", [*PAGES, *PROJECTS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)\s]*)\)", page.read_text())
    assert [target for target in targets if not _exists(page, target)] == []


def _exists(page: Path, target: str) -> bool:
    """Whether the file that a link leads to exists, and the heading in it."""
    file, _, heading = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    if not heading:
        return path.exists()
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings]


@pytest.mark.parametrize("page", [*PAGES, *PROJECTS], ids=name_of)
def test_files_that_it_names_exist(page: Path) -> None:
    folders = "configs|datasets|docs|examples|nl_detectron|projects|tests|tools"
    names = re.findall(rf"`(?:pytest |python )?((?:{folders})/[\w./-]+)(?: [^`]*)?`", page.read_text())
    theirs = ("tools/train_net.py", "tools/lazyconfig_train_net.py")  # Detectron2's
    assert [name for name in names if not (ROOT / name).exists() and name not in theirs] == []
