"""Checkpoints as other implementations write them, and the command line that reads them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from nl_detectron_interop import convert, export_block

from nl_detectron import NonLocalBlock

C = 256  # channels of res4 in R18
OURS = "backbone.bottom_up.res4.non_local_1"
THEIRS = {
    "mmcv": "backbone.layer3.0.non_local_block",
    "alexhex7": "nl_1",
    "slowfast": "s4.pathway0_nonlocal5",
    "caffe2": "nonlocal_conv4_5",
}
OPTIONS = {
    "mmcv": {"subsample": "embedding", "pairwise": "dot_product"},
    "alexhex7": {"subsample": "embedding", "scale": False},
    "slowfast": {"subsample": "input", "pairwise": "embedded_gaussian"},
    "caffe2": {"subsample": "none", "scale": False},
}
TOLD = {  # what the names of these tensors do not show and is no default
    "mmcv": ["pairwise=dot_product"],
    "alexhex7": [],
    "slowfast": ["pairwise=embedded_gaussian"],
    "caffe2": ["subsample=none", "scale=False"],
}


def random_block(layout: str) -> NonLocalBlock:
    block = NonLocalBlock(C, **OPTIONS[layout])
    for name, tensor in block.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0) if "var" in name else tensor.normal_(std=0.1)
    return block


def write_theirs(folder: Path, layout: str, block: NonLocalBlock) -> Path:
    """A checkpoint with the block, and with something else."""
    separator = "_" if layout == "caffe2" else "."
    tensors = {f"{THEIRS[layout]}{separator}{n}": t for n, t in export_block(block, layout).items()}
    tensors["conv1_w"] = torch.ones(3)
    wrapper = {"mmcv": "state_dict", "slowfast": "model_state", "caffe2": "blobs"}.get(layout)
    content = {wrapper: tensors, "epoch": 3} if wrapper else tensors
    path = folder / {"caffe2": "theirs.pkl", "slowfast": "theirs.pyth"}.get(layout, "theirs.pth")
    if layout != "caffe2":
        torch.save(content, path)
        return path
    blobs = {name: tensor.numpy() for name, tensor in tensors.items()}
    path.write_bytes(python2_pickle({**blobs, "lr": np.float32(0.01), "model_iter": 7}))
    return path


def python2_pickle(blobs: dict[str, np.ndarray]) -> bytes:
    """As the authors' code saves it: protocol 2, and numpy's module under its old name."""
    blobs = {**blobs, "conv1_w_momentum": np.zeros(3)}
    return pickle.dumps({"blobs": blobs}, protocol=2).replace(b"numpy._core", b"numpy.core")


def command(layout: str, source: Path, output: Path, *more: object) -> list[str]:
    options = [word for text in TOLD[layout] for word in ("--option", text)]
    blocks = ["--blocks", f"{THEIRS[layout]}={OURS}"]
    arguments = ["--layout", layout, "--source", source, *blocks, *options, "--output", output, *more]
    return ["import", *map(str, arguments)]


def refused(arguments: list[str]) -> str:
    """The line that is printed."""
    with pytest.raises(SystemExit) as error:
        convert.main(arguments)
    (line,) = str(error.value).splitlines()
    assert line.startswith("error: ")
    return line
