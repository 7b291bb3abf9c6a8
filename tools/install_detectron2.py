#!/usr/bin/env python
"""Install the pure-Python Detectron2 0.5, unless a Detectron2 is importable already.

Detectron2 has no package of its own on the Python package index, and upstream needs a compiler.
`detectron2-cdo` there is its tag v0.5 without the C++ sources. This program downloads it by name (pip
checks the hash before anything of it runs), applies the mends below, packs a wheel and installs it.
Nothing in Mask R-CNN or Keypoint R-CNN needs the missing operators: NMS and RoIAlign are torchvision's.

    python tools/install_detectron2.py -c constraints.txt
"""

import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

SOURCE = "detectron2-cdo==0.5 --hash=sha256:53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
VERSION = "0.5+pure"
ADDED = Path(__file__).parent / "pure_detectron2"
PROJECTS = {"PointRend": "point_rend", "DeepLab": "deeplab", "Panoptic-DeepLab": "panoptic_deeplab"}

_NO_C = ("from detectron2 import _C\n", "from detectron2 import _unbuilt as _C\n")
_FAST_EVALUATION = (
    "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
    "COCOeval_opt = COCOeval  # the faster one is compiled\n",
)
_CAFFE2 = (
    "\nfrom .api import *\n",
    "\ntry:\n    from .api import *\nexcept ImportError:  # Caffe2\n    pass\n",
)
_FIND_CONFIG = (
    "pkg_resources.resource_filename(\n"
    '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
    'str(files("detectron2.model_zoo").joinpath("configs", config_path))',
)
# A file, what stands there, and what it becomes.
MENDS = (
    # The compiled operators are missing: say so when one is used, not when Detectron2 is imported.
    ("layers/deform_conv.py", *_NO_C),
    ("layers/roi_align_rotated.py", *_NO_C),
    ("layers/rotated_boxes.py", *_NO_C),
    ("evaluation/coco_evaluation.py", *_FAST_EVALUATION),
    ("export/__init__.py", *_CAFFE2),
    # Names that Pillow, NumPy and setuptools have removed since.
    ("data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    ("data/build.py", "np.int)", "int)"),
    ("data/build.py", "np.int\n", "int\n"),
    ("data/datasets/pascal_voc.py", "np.str)", "str)"),
    ("evaluation/sem_seg_evaluation.py", "np.int)", "int)"),
    ("evaluation/sem_seg_evaluation.py", "np.float)", "float)"),
    ("model_zoo/model_zoo.py", "import pkg_resources\n", "from importlib.resources import files\n"),
    ("model_zoo/model_zoo.py", *_FIND_CONFIG),
    # What PyTorch warns of.
    (
        "modeling/anchor_generator.py",
        "meshgrid(shifts_y, shifts_x)",
        'meshgrid(shifts_y, shifts_x, indexing="ij")',
    ),
)


def importable_detectron2() -> str | None:
    """The version and place of the Detectron2 that this interpreter imports, if any."""
    try:
        import detectron2
    except (ImportError, OSError):  # OSError: a shared library is missing
        return None
    return f"{detectron2.__version__} at {Path(detectron2.__file__).parent}"


def run(*command: str | Path) -> None:
    """Run a module of this interpreter."""
    if subprocess.run([sys.executable, "-m", *map(str, command)], check=False).returncode:
        sys.exit(f"error: `{command[0]} {command[1]}` failed, see above")


def download(folder: Path) -> Path:
    """Download and unpack the source package; its root."""
    requirements = folder / "source.txt"
    requirements.write_text(SOURCE)
    options = ("--no-deps", "--no-build-isolation", "--require-hashes", "--quiet")
    run("pip", "download", *options, "--dest", folder, "--requirement", requirements)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def mend(package: Path) -> None:
    """Apply MENDS; a missing text is an error."""
    for name, old, new in MENDS:
        text = (package / name).read_text()
        if old not in text:
            sys.exit(f"error: {name} lacks {old!r}: this is not Detectron2 0.5")
        (package / name).write_text(text.replace(old, new))
    shutil.copy(ADDED / "unbuilt.py", package / "_unbuilt.py")


def build_wheel(folder: Path) -> Path:
    """Download, mend and pack Detectron2 below `folder`; the wheel."""
    source, tree = download(folder), folder / "tree"
    package = shutil.copytree(source / "detectron2", tree / "detectron2")
    for directory, name in PROJECTS.items():
        shutil.copytree(source / "projects" / directory / name, package / "projects" / name)
    mend(package)
    info = tree / f"detectron2-{VERSION}.dist-info"
    info.mkdir()
    for file in (source / "LICENSE", ADDED / "METADATA", ADDED / "WHEEL"):
        shutil.copy(file, info)
    run("wheel", "pack", tree, "--dest-dir", folder)
    (wheel,) = folder.glob("detectron2-*.whl")
    return wheel


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--constraint", metavar="FILE", help="pip constraints to install with")
    args = parser.parse_args()
    found = importable_detectron2()
    if found:
        print(f"Detectron2 {found} is kept")
        return
    constraint = ("--constraint", args.constraint) if args.constraint else ()
    with tempfile.TemporaryDirectory() as folder:
        run("pip", "install", "--quiet", *constraint, build_wheel(Path(folder)))
    print(f"Detectron2 {VERSION} is installed")


if __name__ == "__main__":
    main()
