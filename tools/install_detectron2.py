#!/usr/bin/env python
"""Install the pure-Python Detectron2 0.5, unless a Detectron2 is importable already.

Detectron2 has no package of its own on the Python package index, and upstream needs a compiler.
`detectron2-cdo` there is its tag v0.5 without the C++ sources. This program downloads it by name (pip
checks the hash before anything of it runs), applies the mends below, packs a wheel and installs it.
Nothing in Mask R-CNN or Keypoint R-CNN needs the missing operators: NMS and RoIAlign are torchvision's.

    python tools/install_detectron2.py -c constraints.txt
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = (
    "detectron2-cdo==0.5 --hash=sha256:53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18\n"
)
VERSION = "0.5+pure"
PROJECTS = {
    "PointRend": "point_rend",
    "DeepLab": "deeplab",
    "Panoptic-DeepLab": "panoptic_deeplab",
}
REQUIREMENTS = (
    "torch",
    "torchvision",
    "numpy",
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.6",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.10",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
    "black",
)

UNBUILT = '''\
"""Stands in for the compiled operators, which this pure-Python build of Detectron2 lacks."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"detectron2._C.{name} (rotated boxes, deformable convolution on a GPU) is not part of this "
        "pure-Python build of Detectron2 0.5: install upstream Detectron2 to use it"
    )
'''

_NO_C = ("from detectron2 import _C\n", "from detectron2 import _unbuilt as _C\n", 1)
_NO_NUMPY_BOOL = "np.bool)", "bool)"
# file: (what stands there, what it becomes, how often)
MENDS: dict[str, tuple[tuple[str, str, int], ...]] = {
    # The compiled operators are missing: say so when one is used, not when Detectron2 is imported.
    "layers/deform_conv.py": (_NO_C,),
    "layers/roi_align_rotated.py": (_NO_C,),
    "layers/rotated_boxes.py": (_NO_C,),
    "evaluation/coco_evaluation.py": (
        (
            "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
            "COCOeval_opt = COCOeval  # the faster one is compiled\n",
            1,
        ),
    ),
    # Caffe2 is gone from PyTorch.
    "export/__init__.py": (
        (
            "from .api import *\n",
            "try:\n    from .api import *\nexcept ImportError:  # Caffe2\n    pass\n",
            1,
        ),
    ),
    # Names that Pillow, NumPy and setuptools have removed since.
    "data/transforms/transform.py": (("Image.LINEAR", "Image.BILINEAR", 1),),
    "data/build.py": (("dtype=np.int)", "dtype=int)", 1), ("dtype=np.int\n", "dtype=int\n", 1)),
    "data/datasets/pascal_voc.py": (("np.str)", "str)", 1),),
    "evaluation/sem_seg_evaluation.py": (("np.int)", "int)", 2), ("np.float)", "float)", 5)),
    "evaluation/pascal_voc_evaluation.py": ((*_NO_NUMPY_BOOL, 2),),
    "structures/masks.py": ((*_NO_NUMPY_BOOL, 2),),
    "utils/visualizer.py": ((*_NO_NUMPY_BOOL, 3),),
    "utils/video_visualizer.py": ((*_NO_NUMPY_BOOL, 1),),
    "model_zoo/model_zoo.py": (
        ("import pkg_resources\n", "from importlib.resources import files\n", 1),
        (
            "pkg_resources.resource_filename(\n"
            '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
            'str(files("detectron2.model_zoo").joinpath("configs", config_path))',
            1,
        ),
    ),
}


def importable_detectron2() -> str | None:
    """The version and place of the Detectron2 that this interpreter imports, if any."""
    try:
        import detectron2
    except (ImportError, OSError):  # OSError: a shared library is missing
        return None
    return f"{detectron2.__version__} at {Path(detectron2.__file__).parent}"


def run(*command: str | Path) -> None:
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True)


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
    """Apply MENDS; a text that does not stand there as often as it should is an error."""
    for name, replacements in MENDS.items():
        text = (package / name).read_text()
        for old, new, count in replacements:
            if text.count(old) != count:
                raise SystemExit(f"error: {name} has {text.count(old)} times {old!r}, not {count}")
            text = text.replace(old, new)
        (package / name).write_text(text)
    (package / "_unbuilt.py").write_text(UNBUILT)


def build_wheel(folder: Path) -> Path:
    """Download, mend and pack Detectron2 below `folder`; the wheel."""
    source = download(folder)
    tree = folder / "tree"
    package = shutil.copytree(source / "detectron2", tree / "detectron2")
    for directory, name in PROJECTS.items():
        shutil.copytree(source / "projects" / directory / name, package / "projects" / name)
    mend(package)
    info = tree / f"detectron2-{VERSION}.dist-info"
    info.mkdir()
    shutil.copy(source / "LICENSE", info)
    requires = "".join(f"Requires-Dist: {requirement}\n" for requirement in REQUIREMENTS)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: detectron2\nVersion: {VERSION}\n"
        f"Summary: Detectron2 0.5 without its compiled operators\nLicense: Apache-2.0\n{requires}"
    )
    (info / "WHEEL").write_text(
        "Wheel-Version: 1.0\nGenerator: install_detectron2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    run("wheel", "pack", tree, "--dest-dir", folder)
    (wheel,) = folder.glob("detectron2-*.whl")
    return wheel


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--constraint", metavar="FILE", help="pip constraints to install with")
    args = parser.parse_args()
    found = importable_detectron2()
    if found:
        print(f"Detectron2 {found} is kept")
        return
    constraint = ("--constraint", args.constraint) if args.constraint else ()
    with tempfile.TemporaryDirectory() as folder:
        try:
            wheel = build_wheel(Path(folder))
            run("pip", "install", "--quiet", *constraint, wheel)
        except subprocess.CalledProcessError as error:
            command = " ".join(map(str, error.cmd[2:4]))
            raise SystemExit(f"error: `{command}` failed ({error.returncode}), see above") from None
    print(f"Detectron2 {VERSION} is installed")


if __name__ == "__main__":
    main()
