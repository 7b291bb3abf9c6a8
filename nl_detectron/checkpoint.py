"""Checkpoints that are whole, and loading with a report. Detectron2 loads what fits and warns of the rest."""

import functools
import logging
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.logger import log_first_n

from nl_detectron.errors import UserError
from nl_detectron.files import UNFINISHED, written_whole
from nl_detectron.load_report import LoadReport, make_report
from nl_detectron.modeling import non_local_blocks
from nl_detectron.weights import read_checkpoint

VARIANTS = "non_local"  # the key in a checkpoint: the variant of each block by its name


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with one report in the place of its warnings.

    What it saves says of each non-local block which variant it is, and is there whole or not at all. The last
    checkpoint is the newest one that is whole.

    Attributes:
        report: of the last checkpoint that was loaded, None before.
    """

    report: LoadReport | None = None

    @classmethod
    def in_place_of(cls, other: DetectionCheckpointer) -> "Checkpointer":
        """One for the same model, folder and other objects."""
        return cls(other.model, other.save_dir, save_to_disk=other.save_to_disk, **other.checkpointables)

    def save(self, name: str, **kwargs: object) -> None:
        """As Detectron2's, with the variant of each block, which no tensor shows.

        Raises:
            UserError: if it cannot be written, as on a full disk. What was there before is kept.
        """
        if not (self.save_dir and self.save_to_disk):
            return
        folder = Path(self.save_dir)
        for left in folder.glob(f"{UNFINISHED}model_*"):  # by a process that was killed
            left.unlink()
        variants = {name: block.variant() for name, block in non_local_blocks(self.model)}
        path = folder / f"{name}.pth"
        try:
            with written_whole(path) as unfinished:
                super().save(unfinished.stem, **{VARIANTS: variants}, **kwargs)
            with written_whole(folder / "last_checkpoint") as unfinished:
                unfinished.write_text(path.name)
            self.logger.info("Saved %s", path)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"OUTPUT_DIR must be a folder with room for checkpoints; {path} cannot be written: "
                f"{_reason(error)}. Make room and --resume."
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Left to `save`: fvcore calls this before the file has its name."""

    def has_checkpoint(self) -> bool:
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        return str(last_whole_checkpoint(Path(self.save_dir)) or "")

    def load(self, path: str, *args: object, **kwargs: object) -> dict[str, object]:
        self._path = path
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, object]:
        if filename.endswith(".pkl"):
            read_checkpoint(Path(filename))  # refuses what could run code, as Detectron2's reading would
        try:
            return super()._load_file(filename)
        except pickle.UnpicklingError:  # whose message recommends to run whatever is in it
            raise UserError(
                f"{filename} is not a checkpoint, or holds other things than tensors and numbers"
            ) from None

    def _load_model(self, checkpoint: dict[str, object]) -> object:
        by_ends = checkpoint.get("matching_heuristics", False)
        incompatible = super()._load_model(checkpoint)
        given = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        given |= {name: shape for name, shape, _ in incompatible.incorrect_shapes}
        variants = checkpoint.pop(VARIANTS, {})
        self.report = make_report(self.model, self._path, given, variants, by_ends=by_ends)
        return incompatible

    def _convert_ndarray_to_tensor(self, state_dict: dict[str, object]) -> None:
        super()._convert_ndarray_to_tensor(state_dict)
        # What is loaded, under the names that Detectron2 gives it: fvcore does this last, before it strips
        # prefixes in place. What it calls missing leaves out the statistics that FrozenBN fills in.
        self._tensors = state_dict

    def _log_incompatible_keys(self, incompatible: object) -> None:
        log = self.logger.info if self.report.fits else self.logger.warning
        log("%s", self.report)


def _reason(error: BaseException) -> str:
    """The system's words where there are some: PyTorch's writer raises errors of its own after those."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _reason(error.__context__) if error.__context__ else str(error).splitlines()[0]


def check_weights_file(weights: str) -> None:
    """Whether MODEL.WEIGHTS is there, and was written to its end. A URL is not looked up.

    Raises:
        UserError: if there is no such file, it is empty, or the beginning of a zip, as .pth are.
    """
    if "://" in weights:
        return
    path = Path(weights.split("?")[0])  # Detectron2 main reads options after a question mark
    if not path.is_file():
        raise UserError(
            f"MODEL.WEIGHTS must be a file or a URL; got {weights!r}, and there is no such file. "
            'Correct the path; a training may also start from scratch, with "".'
        )
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not path.stat().st_size or (is_zip and not zipfile.is_zipfile(path)):
        raise UserError(
            f"MODEL.WEIGHTS must be a whole checkpoint; {str(path)!r} is empty or cut short. Get it again."
        )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a training continues from: the one that `last_checkpoint` names, or if that is
    damaged or gone, the one of the highest iteration of those that are whole. None if there are none.

    Raises:
        UserError: if there are checkpoints, and none is whole.
    """
    tag = folder / "last_checkpoint"
    named = tag.read_bytes().decode(errors="replace").strip() if tag.is_file() else ""
    whole, damaged = _sort_out([folder / named] if named else [])
    if not whole:
        others = (path for path in sorted(folder.glob("model_*.pth")) if path.name != named)
        whole, more = _sort_out(others)
        damaged += more
    listed = ", ".join(damaged)
    if damaged and not whole:
        raise UserError(
            f"{folder} must hold a whole checkpoint to --resume from; damaged or gone: {listed}. "
            "Remove them to start anew, or give a --resume folder that has one."
        )
    last = max(whole, key=whole.get, default=None)
    if damaged:
        message = f"Damaged or gone: {listed}. The last whole checkpoint is {last}."
        log_first_n(logging.WARNING, message, name=__name__, key="message")  # Detectron2 asks several times
    return last


def _sort_out(paths: Iterable[Path]) -> tuple[dict[Path, int], list[str]]:
    """The last iteration of each whole checkpoint, and the names of others; without files that are none."""
    whole, damaged = {}, []
    for path in paths:
        try:
            iteration = _read_iteration(path, path.stat().st_mtime_ns)
        except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError, pickle.PickleError):
            damaged.append(path.name)
        else:
            whole |= {path: iteration} if iteration is not None else {}
    return whole, damaged


@functools.cache
def _read_iteration(path: Path, modified: int) -> int | None:
    """The last iteration of a training's checkpoint, None if it is another's. It reads all of a large file.

    Raises:
        Exception: of several kinds, if the file is not whole.
    """
    with zipfile.ZipFile(path) as archive:
        if archive.testzip():  # its checksums
            raise zipfile.BadZipFile
    content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    return content.get("iteration") if isinstance(content, Mapping) else None
