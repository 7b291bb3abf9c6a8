"""Loading weights with a report. Detectron2 loads whatever fits and warns of the rest."""

import pickle
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer

from nl_detectron.errors import UserError
from nl_detectron.load_report import LoadReport, make_report
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
        try:
            return super()._load_file(filename)
        except pickle.UnpicklingError:  # whose message recommends to run whatever is in it
            raise UserError(
                "it is not a checkpoint, or holds other things than tensors and numbers"
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
