"""Loading weights with a report. Detectron2 loads whatever fits and warns of the rest."""

from collections.abc import Mapping
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from nl_detectron.load_report import LoadReport, Shape, make_report
from nl_detectron.modeling import non_local_blocks
from nl_detectron.weights import read_checkpoint

VARIANTS = "non_local"  # the key in a checkpoint: the variant of each block by its name


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with one report in the place of its warnings.

    What it saves says of each non-local block which variant it is.

    Attributes:
        report: of the last checkpoint that was loaded, None before.
    """

    report: LoadReport | None = None

    @classmethod
    def in_place_of(cls, other: DetectionCheckpointer) -> "Checkpointer":
        """One for the same model, folder and other objects."""
        return cls(other.model, other.save_dir, save_to_disk=other.save_to_disk, **other.checkpointables)

    def save(self, name: str, **kwargs: object) -> None:
        """As Detectron2's, with the variant of each block, which no tensor shows."""
        variants = {name: block.variant() for name, block in non_local_blocks(self.model)}
        super().save(name, **{VARIANTS: variants}, **kwargs)

    def load(self, path: str, *args: object, **kwargs: object) -> dict[str, object]:
        self._path = path
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, object]:
        if filename.endswith(".pkl"):
            read_checkpoint(Path(filename))  # refuses what could run code, as Detectron2's reading would
        return super()._load_file(filename)

    def _load_model(self, checkpoint: dict[str, object]) -> object:
        # Where names are matched by their ends, Detectron2 does not tell other shapes from other names.
        by_ends = checkpoint.get("matching_heuristics", False)
        tensors = checkpoint["model"].items() if by_ends else ()
        given = {name: tuple(tensor.shape) for name, tensor in tensors}
        incompatible = super()._load_model(checkpoint)
        reshaped = list(incompatible.incorrect_shapes)
        if by_ends:
            reshaped += _reshaped(self.model, incompatible, given)
        variants = checkpoint.pop(VARIANTS, {})
        self.report = make_report(self.model, self._path, incompatible, reshaped, variants)
        return incompatible

    def _log_incompatible_keys(self, incompatible: object) -> None:
        log = self.logger.info if self.report.fits else self.logger.warning
        log("%s", self.report)


def _reshaped(
    model: nn.Module, incompatible: object, given: Mapping[str, Shape]
) -> list[tuple[str, Shape, Shape]]:
    """The missing tensors that the file has in another shape, () where Detectron2 has changed the name."""
    ours = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    pairs = [
        (key, name)
        for key in incompatible.missing_keys
        for name in incompatible.unexpected_keys
        if _is_called(key, name)
    ]
    return [(key, given.get(name, ()), ours[key]) for key, name in pairs]


def _is_called(key: str, name: str) -> bool:
    """Whether a tensor of the model is called `name` in a file whose names are matched by their ends."""
    return key == name or key.endswith(f".{name}")
