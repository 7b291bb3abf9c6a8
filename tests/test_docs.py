"""What the documentation says can be done: each block of each page is run, as doc_blocks.py says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import Block, Reader, blocks_of
from doc_commands import BadPageError
from runs import ROOT

from nl_detectron.data import dataset_name, datasets_root, write_shapes

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language in ("bash", "python")]


@pytest.fixture(scope="session")
def datasets(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes, and COCO where it is there."""
    folder = tmp_path_factory.mktemp("datasets_of_docs")
    for mode in ("far", "near"):
        write_shapes(shapes_root / dataset_name(mode), train=4, val=6, size=256, mode=mode)
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


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(
    block: Block, reader_of: Callable[[Path], Reader], datasets: Path, request: pytest.FixtureRequest
) -> None:
    if "needs COCO" in block.marks:
        request.getfixturevalue("coco_root")
    reader_of(block.page).read_to(block, has_coco=(datasets / "coco").is_dir())


def test_there_are_pages_and_blocks() -> None:
    assert len(PAGES) >= 10
    assert {block.page for block in BLOCKS} >= {ROOT / "README.md", ROOT / "docs" / "training.md"}


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    listed = re.findall(r"^\| \[(\S+\.md)\]\(\1\) \|", index, re.MULTILINE)
    assert sorted([*listed, "README.md"]) == [page.name for page in PAGES if page.parent == ROOT / "docs"]


def test_files_that_are_written_are_used() -> None:
    written = [block for page in PAGES for block in blocks_of(page) if "file" in block.marks]
    for block in written:
        users = [other for other in BLOCKS if other.page == block.page and other.line > block.line]
        assert any(block.marks["file"] in user.text for user in users), str(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http)([^)\s]*)\)", page.read_text())
    assert [target for target in targets if not _is_there(page, target)] == []


def _is_there(page: Path, target: str) -> bool:
    """Whether a link of a page leads to a file, and in a page to a heading."""
    file, _, heading = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    if not heading:
        return path.exists()
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_it_names_are_there(page: Path) -> None:
    folders = "configs|datasets|docs|examples|nl_detectron|tests|tools"
    names = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text())
    theirs = ("tools/train_net.py", "tools/lazyconfig_train_net.py")  # Detectron2's
    assert [name for name in names if not (ROOT / name).exists() and name not in theirs] == []


def bash(text: str, mark: str = "") -> str:
    return f"{mark}\n```bash\n{text}\n```\n"


CONFIG = "configs/quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
TRAIN = f"python train_net.py --config-file {CONFIG}"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```\npython train_net.py\n```\n", "'' must be one of bash, python"),
        ("```sh\ntrue\n```\n", "'sh' must be one of bash, python"),
        ("  ```bash\n  true\n  ```\n", "a fence is indented"),
        (bash("true", "<!-- ligth: SOLVER.MAX_ITER 2 -->"), "ligth"),
        ("<!-- not run: too long -->\n\n" + bash("true"), "is not right before a fence"),
    ],
    ids=["no language", "another language", "indented", "unknown comment", "comment elsewhere"],
)
def test_a_page_that_cannot_be_read_is_refused(page: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(page)
    with pytest.raises(BadPageError, match=message):
        blocks_of(file)


GPUS = "<!-- not run: GPUs -->"
FAILING = {
    "a command": (bash("true && false"), "false: exit code 1"),
    "no program": (bash("no_such_program"), "exit code 127"),
    "flag": (bash("python train_net.py --no-such-flag"), "--no-such-flag: 2"),
    "key": (bash(f"{TRAIN} --dry-run SOLVER.MAX_ITRE 1"), "'SOLVER.MAX_ITRE' must be a key"),
    "data set": (bash(f"{TRAIN} --dry-run DATASETS.TEST \"('no_such',)\""), "no_such.*: 1"),
    "light": (bash(f"{TRAIN} --dry-run", "<!-- light: SOLVER.MAX_ITER 0 -->"), "SOLVER.MAX_ITER 0: 1"),
    "variable": (bash(f"A=1\n{TRAIN} --dry-run SEED $A", "<!-- light: A=one -->"), "SEED must be"),
    "light, as it stands": (
        bash("C=configs/no.yaml\n" + "python train_net.py --config-file $C", f"<!-- light: C={CONFIG} -->"),
        "no configs/no",
    ),
    "lines instead": (bash("make demo", "<!-- light: python no_such.py -->"), "no_such.py"),
    "lines replaced": (bash("make no_such", "<!-- light: python train_net.py -h -->"), "no_such"),
    "not run: torchrun": (bash("torchrun --no-such train_net.py", GPUS), "torchrun has no"),
    "not run: flag": (bash("torchrun train_net.py --no-such", GPUS), "--no-such: 2"),
    "not run: key": (bash(f"{TRAIN} --num-gpus 8 SOLVER.MAX_ITRE 1", GPUS), "'SOLVER.MAX_ITRE' must"),
    "not run: config": (bash("python train_net.py --config-file configs/no.yaml", GPUS), "no configs/no"),
    "not run: script": (bash("python no_such.py", GPUS), "no_such.py"),
    "not run: target": (bash("make no_such_target", GPUS), "no_such_target"),
    "not run: program": (bash("cd . && pyhton train_net.py", GPUS), "pyhton is unknown"),
    "not run: syntax": (bash("if", GPUS), "bash"),
    "Python": ("```python\nprint(1 / 0)\n```\n", "division by zero"),
    "name": ("```python\na = 1\n```\n```python\nprint(a)\n```\n", "'a' is not defined"),
    "output": ("```python\nprint(6 * 7)\n```\n\n```text\n43\n```\n", "prints\n42\n"),
    "output of bash": (bash("echo one two") + "```text\none ... three\n```\n", "prints\none two"),
}


@pytest.mark.parametrize(("page", "error"), FAILING.values(), ids=FAILING)
def test_a_block_that_fails_fails_its_test(page: str, error: str, tmp_path: Path, datasets: Path) -> None:
    reader, blocks = read(page, tmp_path, datasets)
    with pytest.raises(Exception, match=error):  # whatever the block raises
        reader.read_to(blocks[-1], has_coco=True)


def test_blocks_build_on_each_other(tmp_path: Path, datasets: Path) -> None:
    """Those of a page before it are run first, once; in its folder, with its variables."""
    page = (
        bash("NAME=here\necho $NAME >> made.txt")
        + "```python\ntext = open('made.txt').read()\n```\n"
        + "<!-- continues -->\n```python\nprint(text.strip())\n```\n```text\nhere\n```\n"
        + "<!-- file: more.yaml -->\n```yaml\nSEED: 7\n```\n"
        + bash("cat more.yaml $(echo made.txt)\necho $NAME")
        + "```text\nSEED: 7\nhere\nhere\n```\n"
    )
    reader, blocks = read(page, tmp_path, datasets)
    reader.read_to(blocks[-1], has_coco=True)
    reader.read_to(blocks[-1], has_coco=True)


def read(page: str, tmp_path: Path, datasets: Path) -> tuple[Reader, list[Block]]:
    """The reader of a page with that text, and its blocks."""
    file, folder = tmp_path / "page.md", tmp_path / "folder"
    file.write_text(page)
    folder.mkdir()
    return Reader(file, folder, datasets), blocks_of(file)
