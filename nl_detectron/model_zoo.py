"""The configs this package ships, under the function names of `detectron2.model_zoo`."""

from pathlib import Path

from detectron2.config import CfgNode, LazyConfig, instantiate
from detectron2.modeling import build_model
from omegaconf import DictConfig
from torch import nn

from .checkpoint import Checkpointer
from .config import get_cfg
from .device import usable_device

__all__ = ["get", "get_config", "get_config_file"]

_PACKAGE = Path(__file__).resolve().parent


def get_config_file(config_path: str) -> str:
    """The real path of a shipped config.

    Args:
        config_path: relative to `configs/`: "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml".

    Raises:
        RuntimeError: as in Detectron2, if there is no such config.
    """
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):  # installed, and in a checkout
        if (folder / config_path).is_file():
            return str(folder / config_path)
    raise RuntimeError(f"{config_path} not available in the model zoo of nl_detectron!")


def shipped_configs() -> list[str]:
    """The names of the YAML configs that `get_config_file` finds, without their bases."""
    folder = Path(get_config_file("Base-RCNN-FPN.yaml")).parent
    found = [path for path in folder.glob("*/*.yaml") if not path.name.startswith("Base-")]
    return sorted(str(path.relative_to(folder)) for path in found)


def get_config(config_path: str, trained: bool = False) -> CfgNode | DictConfig:
    """The config of a shipped model: a CfgNode for a .yaml, a LazyConfig (DictConfig) for a .py.

    Raises:
        RuntimeError: as in Detectron2, for an unknown config, and if `trained`: no weights are published.
    """
    config_file = get_config_file(config_path)
    if trained:
        raise RuntimeError(f"Pretrained model for {config_path} is not available!")
    if config_file.endswith(".py"):
        return LazyConfig.load(config_file)
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """A shipped model, in training mode, with the weights that its config names.

    Args:
        device: instead of the config's; None is the config's, or the CPU where there is no GPU.
    """
    cfg = get_config(config_path, trained)
    if isinstance(cfg, CfgNode):
        cfg.MODEL.DEVICE = device or usable_device(cfg.MODEL.DEVICE)
        model, weights = build_model(cfg), cfg.MODEL.WEIGHTS
    else:
        device = device or usable_device(cfg.train.device)
        model, weights = instantiate(cfg.model).to(device), cfg.train.init_checkpoint
    Checkpointer(model).load(weights)
    return model
