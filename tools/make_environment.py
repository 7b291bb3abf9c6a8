#!/usr/bin/env python
"""Make the environment of `make`: nl_detectron, a Detectron2, and what tests and lint need.

A Detectron2 of the user's, importable by this interpreter or in the environment already, is kept with the
torch it was built for, and only what is missing is installed. Else everything is, at the tested versions
of constraints.txt, with the pure-Python Detectron2 0.5 of install_detectron2.py.

    python3 tools/make_environment.py .venv
"""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINT = ("-c", str(ROOT / "constraints.txt"))
INSTALL_DETECTRON2 = str(ROOT / "tools" / "install_detectron2.py")
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--no-compile")  # Python compiles what it imports
PROJECT = (*PIP_INSTALL, "-e", f"{ROOT}[dev]")
ORIGIN = """import detectron2, importlib.util as util
print("ours" if util.find_spec("detectron2._unbuilt") else "the user's")"""


def run(python: Path, *arguments: str) -> None:
    if subprocess.run([str(python), *arguments], check=False).returncode:
        sys.exit(f"error: `python {' '.join(arguments)}` failed, see above")


def has_pip(python: Path) -> bool:
    """Whether there is an environment with pip."""
    command = [str(python), "-m", "pip", "--version"]
    return python.exists() and not subprocess.run(command, capture_output=True, check=False).returncode


def detectron2_of(python: Path | str) -> str:
    """Whose Detectron2 an interpreter imports: "ours" (install_detectron2.py's), "the user's", or ""."""
    result = subprocess.run([str(python), "-c", ORIGIN], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def create(environment: Path) -> None:
    """A new environment, which sees this interpreter's packages if a Detectron2 is among them; or pip in one
    that lacks it, as after an interruption, or if another tool has made it.
    """
    python, unfinished = environment / "bin" / "python", (environment / "pyvenv.cfg").exists()
    try:
        if python.exists():
            subprocess.run([str(python), "-m", "ensurepip", "--upgrade"], check=True, capture_output=True)
        else:
            venv.create(environment, with_pip=True, clear=unfinished, symlinks=True)
    except subprocess.CalledProcessError:
        sys.exit(f"error: {sys.executable} has no ensurepip (on Debian: apt-get install python3-venv)")
    if detectron2_of(sys.executable) and not detectron2_of(python):
        # Not --system-site-packages: within an environment it would show the packages of the system.
        folders = [*site.getsitepackages(), site.getusersitepackages()]
        lines = (f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        packages = environment / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        (packages / "packages_of_the_user.pth").write_text("".join(lines))


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path, help="its folder, made if it is not there")
    environment = parser.parse_args().environment
    if sys.version_info < (3, 11):  # noqa: UP036  it may be run by any; the pinned versions need it
        sys.exit(f"error: Python must be 3.11 or newer; this is {sys.version.split()[0]}")
    python = environment / "bin" / "python"
    if not has_pip(python):
        create(environment)
    if detectron2_of(python) == "the user's":
        run(python, INSTALL_DETECTRON2)  # says which it is
        run(python, *PROJECT)
    else:
        run(python, *PIP_INSTALL, *CONSTRAINT, "torch", "torchvision", "setuptools", "wheel")
        run(python, INSTALL_DETECTRON2, *CONSTRAINT)
        run(python, *PROJECT, *CONSTRAINT)
    if subprocess.run([str(python), "-c", "import cv2"], check=False).returncode:
        sys.exit(
            "error: OpenCV needs libraries of the system: install them (on Debian "
            f"libgl1 and libglib2.0-0), or opencv-python-headless into {environment}"
        )
    print(f"The environment is ready. To use it: . {environment / 'bin' / 'activate'}")


if __name__ == "__main__":
    main()
