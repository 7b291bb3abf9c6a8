"""Detectron2's checkpointer with atomic writing, a load report, and detection of damaged files."""

import functools
import logging
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n
from torch import nn

from nl_detectron.errors import UserError
from nl_detectron.files import UNFINISHED, atomic_write
from nl_detectron.modeling import non_local_blocks

from .foreign import convert_resnet, find_state_dict, is_tensor
from .load_report import LoadReport, make_report
from .reading import load_safely, numpy_admitted, read_checkpoint, unreadable_as_user_error, why_refused

logger = logging.getLogger(__name__)

VARIANTS = "non_local"  # the key in a checkpoint: the variant of each block by its name
METADATA = "metadata"  # the key in a checkpoint: names of classes and keypoints, as Detectron2's metadata


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with one report in place of its warnings.

    Checkpoints record the variant of each non-local block, and `metadata`. The last checkpoint is the newest
    intact one.
    """

    report: LoadReport | None = None  # of the last checkpoint that was loaded
    metadata: Mapping[str, object] = {}  # what to save for `saved_metadata`
    is_quiet: bool = False  # whether the caller shows the report
    is_to_resume: bool = True  # whether what it saves is the last checkpoint of a training

    @classmethod
    def in_place_of(cls, other: DetectionCheckpointer) -> "Checkpointer":
        """One for the same model, folder and other objects."""
        return cls(other.model, other.save_dir, save_to_disk=other.save_to_disk, **other.checkpointables)

    def save(self, name: str, **kwargs: object) -> None:
        """As Detectron2's, atomically; a UserError if the file cannot be written, as on a full disk."""
        if not (self.save_dir and self.save_to_disk):
            return
        folder = Path(self.save_dir)
        for leftover in folder.glob(f"{UNFINISHED}model_*"):  # of a process that was killed
            leftover.unlink()
        variants = {block_name: block.variant() for block_name, block in non_local_blocks(self.model)}
        extra = {VARIANTS: variants, **({METADATA: self.metadata} if self.metadata else {}), **kwargs}
        path = folder / f"{name}.pth"
        try:
            with atomic_write(path) as unfinished:
                self._save_as(unfinished, **extra)
            if self.is_to_resume:
                with atomic_write(folder / "last_checkpoint") as unfinished:
                    unfinished.write_text(path.name)
        except (OSError, RuntimeError) as error:
            if not (reason := _reason(error)):
                raise
            raise UserError(f"{path} cannot be written: {reason}. Correct that and --resume.") from error
        logger.info("Saved %s", path)

    def _save_as(self, file: Path, **extra: object) -> None:
        """Detectron2's `save` under any name in any folder, such as a link leads to."""
        folder, self.save_dir = self.save_dir, str(file.parent)
        try:
            super().save(file.stem, **extra)
            file.with_suffix(".pth").replace(file)
        finally:
            self.save_dir = folder

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Do nothing: `save` writes the tag once the file has its final name."""

    def has_checkpoint(self) -> bool:
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        return str(last_intact_checkpoint(Path(self.save_dir)) or "")

    def load(self, path: str, *args: object, **kwargs: object) -> dict[str, object]:
        """As Detectron2's, with a UserError for a file that is damaged, no checkpoint, or not available."""
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        except OSError as error:
            if "://" not in path:
                raise
            remedy = "Without a network, set it to a file that you have."
            raise UserError(f"MODEL.WEIGHTS {path} cannot be downloaded: {error}. {remedy}") from error

    def _load_file(self, filename: str) -> dict[str, object]:
        read_checkpoint(Path(filename))  # refuses what could run code, before Detectron2 reads it
        with unreadable_as_user_error(filename), numpy_admitted():
            loaded = super()._load_file(filename)
        own = self.model.state_dict()
        tensors = find_state_dict({"model": loaded["model"]}, own)
        for name, value in tensors.items():
            if not is_tensor(value):
                kind = type(value).__name__
                what = f"{filename} does not hold tensors by their names: {name!r} is a {kind}"
                raise UserError(f"{what}. Save the state dict alone.")
        loaded["model"], self._origin = convert_resnet(tensors, own)
        if self._origin:
            loaded["matching_heuristics"] = True
        return loaded

    def _load_model(self, checkpoint: dict[str, object]) -> object:
        by_ends = checkpoint.get("matching_heuristics", False)
        incompatible = super()._load_model(checkpoint)
        given = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        given |= {name: shape for name, shape, _ in incompatible.incorrect_shapes}
        variants = checkpoint.pop(VARIANTS, {})
        self.report = make_report(self.model, self._path, given, variants, by_ends, self._origin)
        if not self.report.loaded:
            names = ", ".join(list(given)[:3])
            remedy = 'Give weights of this model or its backbone, or "" to train from scratch.'
            what = f"MODEL.WEIGHTS {self._path!r} fits no tensor of this model: it has {names}"
            raise UserError(f"{what}. {remedy}")
        return incompatible

    def _convert_ndarray_to_tensor(self, state_dict: dict[str, object]) -> None:
        super()._convert_ndarray_to_tensor(state_dict)
        self._tensors = state_dict  # under Detectron2's names: fvcore does this last

    def _log_incompatible_keys(self, incompatible: object) -> None:
        if not self.is_quiet:
            (logger.info if self.report.fits else logger.warning)("%s", self.report)


def load_weights(model: nn.Module, weights: str, allow_mismatch: bool = False) -> LoadReport:
    """Load MODEL.WEIGHTS into a model, for inference, and return the report without logging it.

    Args:
        allow_mismatch: accept a checkpoint that lacks tensors of the model. One without any block, the
            baseline's, is always accepted.

    Raises:
        UserError: if there are no weights, or they cannot be loaded.
    """
    if not weights:
        raise UserError("MODEL.WEIGHTS is empty. Set it to a checkpoint of this model.")
    check_weights_file(weights)
    checkpointer = Checkpointer(model)
    checkpointer.is_quiet = True
    checkpointer.load(weights)
    if not allow_mismatch:
        checkpointer.report.check_complete()
    return checkpointer.report


def saved_metadata(weights: str) -> Mapping[str, object]:
    """The names that a training stored in its checkpoint, as Detectron2's metadata; {} for other files.

    Raises:
        UserError: if the file cannot be read.
    """
    path = Path(PathManager.get_local_path(weights.split("?")[0])) if weights else Path()
    if not zipfile.is_zipfile(path):
        return {}
    with unreadable_as_user_error(path):
        content = load_safely(path, mmap=True)
    metadata = content.get(METADATA) if isinstance(content, Mapping) else None
    return metadata if isinstance(metadata, Mapping) else {}


def check_weights_file(weights: str) -> None:
    """Refuse MODEL.WEIGHTS that does not exist. A URL is not looked up."""
    path = weights.split("?")[0]  # Detectron2 main reads options after a question mark
    if "://" not in weights and not Path(path).is_file():
        remedy = 'Correct the path, or give "" to train from scratch.'
        raise UserError(f"MODEL.WEIGHTS {weights!r} does not exist. {remedy}")


def last_intact_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from: the one named in `last_checkpoint`, or if that is damaged or gone, the
    intact one of the highest iteration. None without checkpoints; a UserError if none is intact.
    """
    tag = folder / "last_checkpoint"
    name = tag.read_bytes().decode(errors="replace").strip() if tag.is_file() else ""
    named = [folder / name] if name else []
    intact, damaged = _sort_out(named)
    if not intact:
        intact, more = _sort_out(path for path in sorted(folder.glob("model_*.pth")) if path not in named)
        damaged += more
    if not damaged:
        return max(intact, key=intact.get, default=None)
    listed = f"Damaged or gone: {', '.join(damaged)}."
    if not intact:
        remedy = "Start anew in another folder, or give one with an intact checkpoint."
        raise UserError(f"{folder} has no intact checkpoint to --resume from. {listed} {remedy}")
    last = max(intact, key=intact.get)
    message = f"{listed} The last intact checkpoint is {last}."
    log_first_n(logging.WARNING, message, name=__name__, key="message")  # Detectron2 asks several times
    return last


def _sort_out(paths: Iterable[Path]) -> tuple[dict[Path, int], list[str]]:
    """Map intact checkpoints to their iteration; also return the names of damaged ones. Ignore others."""
    intact: dict[Path, int] = {}
    damaged: list[str] = []
    for path in paths:
        try:
            iteration = _read_iteration(path, path.stat().st_mtime_ns)
        except (OSError, zipfile.BadZipFile, RuntimeError, ValueError, EOFError, pickle.PickleError) as error:
            if reason := why_refused(error):
                raise UserError(f"{path} is intact, but cannot be read: {reason}.") from error
            damaged.append(path.name)
            continue
        if iteration is not None:
            intact[path] = iteration
    return intact, damaged


@functools.cache
def _read_iteration(path: Path, modified: int) -> int | None:
    """The last iteration of a training's checkpoint, None for another file. It reads all of a large file."""
    if is_archive := zipfile.is_zipfile(path):  # PyTorch's older format is none
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # its checksums
                raise zipfile.BadZipFile
    content = load_safely(path, mmap=is_archive)
    return content.get("iteration") if isinstance(content, Mapping) else None


def _reason(error: BaseException | None) -> str:
    """The system's reason, if there is one: PyTorch's writer raises errors of its own after it."""
    if error is None:
        return ""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _reason(error.__context__)
