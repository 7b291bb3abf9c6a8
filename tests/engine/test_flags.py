"""Command lines of train_net.py and of the tools: their flags, and the config that they name."""

import argparse
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from runs import KEYPOINT, MASK, load_config

from nl_detectron import get_cfg, model_zoo
from nl_detectron.device import usable_device
from nl_detectron.engine import add_detection_flags, find_config, output_path, read_config, tool_parser
from nl_detectron.engine import set_confidence_threshold as set_threshold
from nl_detectron.engine.flags import THRESHOLDS
from nl_detectron.errors import UserError
from nl_detectron_cli.arguments import train_net_parser


def test_what_the_user_gave() -> None:
    """Keys of MODEL.NON_LOCAL in a file or its bases, and all of the command line."""
    args = train_net_parser().parse_args(["--config-file", MASK, "SOLVER.MAX_ITER", "7", "SEED", "-1"])
    cfg, given = read_config(args)
    assert cfg.SOLVER.MAX_ITER == 7
    assert given == {"MODEL.NON_LOCAL.RES4", "SOLVER.MAX_ITER", "SEED"}


def test_the_config_of_a_finished_run_gives_nothing(tmp_path: Path) -> None:
    """It has all keys of MODEL.NON_LOCAL because the run wrote it: a baseline's is no config of blocks."""
    cfg = model_zoo.get_config(MASK.replace("_nl", ""))
    (tmp_path / "config.yaml").write_text(cfg.dump())
    args = train_net_parser().parse_args(["--config-file", str(tmp_path / "config.yaml")])
    cfg, given = read_config(args)
    assert given == set()
    assert cfg.MODEL.BACKBONE.NAME == "build_resnet_fpn_backbone"


@pytest.mark.parametrize("name", [MASK, f"configs/{MASK}", model_zoo.get_config_file(MASK)])
def test_a_config_by_its_name_or_its_path(name: str) -> None:
    assert Path(find_config(name)).resolve() == Path(model_zoo.get_config_file(MASK))


def test_without_gpu_it_runs_on_the_cpu(without_gpu: None, capsys: pytest.CaptureFixture[str]) -> None:
    """A line on stderr says so; another that mixed precision, which Detectron2 has for GPUs only, is ours."""
    cfg = load_config("--config-file", MASK, "SOLVER.AMP.ENABLED", "True")
    assert (cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION) == ("cpu", False, "bfloat16")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "No GPU is available: running on the CPU."
    assert "using SOLVER.AMP.PRECISION bfloat16 instead" in second
    load_config("--config-file", MASK, "MODEL.DEVICE", "cpu")
    assert capsys.readouterr().err == ""


NOT_COMPILED = AssertionError("Torch not compiled with CUDA enabled")


def pytorch_without_gpu(
    monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception, gpus: tuple[str, ...]
) -> None:
    """PyTorch that cannot use a GPU, for this reason, on a machine whose driver lists `gpus` in `folder`."""
    for gpu in gpus:
        (folder / gpu).mkdir()
    monkeypatch.setattr("nl_detectron.device._GPUS", folder)
    is_available = partial(warnings.warn, f"CUDA initialization: {error}")  # and returns None
    monkeypatch.setattr("torch.cuda.is_available", is_available)
    monkeypatch.setattr("torch.cuda.init", Mock(side_effect=error))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
        RuntimeError("No CUDA GPUs are available"),
        NOT_COMPILED,
    ],
)
def test_a_machine_without_gpu(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytorch_without_gpu(monkeypatch, tmp_path, error, ())
    assert usable_device("cuda") == usable_device("cuda:1") == "cpu"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040).\nException raised from"
        ),
        RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
        NOT_COMPILED,
    ],
)
def test_a_gpu_that_cannot_be_used_is_refused(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, without PyTorch's warning of the same. The CPU has to be asked for."""
    pytorch_without_gpu(monkeypatch, tmp_path, error, ("0000:01:00.0",))
    warnings.simplefilter("error")  # pytest restores it
    with pytest.raises(UserError) as refused:
        load_config("--config-file", MASK)
    reason = str(error).split("\n")[0].rstrip(".")
    remedy = "Install a PyTorch for this GPU and its driver, or set MODEL.DEVICE cpu."
    assert str(refused.value) == f"PyTorch cannot use the GPU: {reason}. {remedy}"
    assert load_config("--config-file", MASK, "MODEL.DEVICE", "cpu").MODEL.DEVICE == "cpu"
    with pytest.raises(UserError, match="PyTorch cannot use the GPU"):
        model_zoo.get(MASK)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert load_config("--config-file", MASK, "MODEL.DEVICE", "cuda:1").MODEL.DEVICE == "cuda:1"
    with pytest.raises(UserError, match="^MODEL.DEVICE is cuda:2, but there are 2 GPUs.$"):
        load_config("--config-file", MASK, "MODEL.DEVICE", "cuda:2")


@pytest.mark.parametrize("device", ["mps", "cuda:", "GPU"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(UserError, match=f"MODEL.DEVICE must be cpu, cuda or cuda:k; got '{device}'"):
        load_config("--config-file", MASK, "MODEL.DEVICE", device)


def test_keys_after_input_are_no_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = tool_parser("A tool.")
    parser.add_argument("--input", nargs="+")
    words = ["--config-file", KEYPOINT, "--input", "a.jpg", "b.jpg", "SEED", "5"]
    args = parser.parse_args(words)
    cfg, given = read_config(args)
    assert (args.input, cfg.SEED, given & {"SEED"}) == (["a.jpg", "b.jpg"], 5, {"SEED"})
    monkeypatch.chdir(tmp_path)
    Path("SEED").touch()  # a file of that name is an input
    args = parser.parse_args(words[:-1])
    read_config(args)
    assert args.input == ["a.jpg", "b.jpg", "SEED"]


@pytest.mark.parametrize("words", ["SEED 5", "--opts SEED 5"])
def test_keys_with_and_without_opts(words: str) -> None:
    args = tool_parser("A tool.").parse_args(["--config-file", MASK, *words.split()])
    assert read_config(args)[0].SEED == 5


def test_the_threshold_is_that_of_the_flag_or_of_a_key() -> None:
    parser = argparse.ArgumentParser()
    add_detection_flags(parser)
    threshold, cfg = parser.parse_args([]).confidence_threshold, get_cfg()
    cfg.merge_from_list([THRESHOLDS[0], 0.25])
    set_threshold(cfg, threshold, given={THRESHOLDS[0]})
    assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.25
    assert cfg.MODEL.RETINANET.SCORE_THRESH_TEST == threshold == 0.5
    with pytest.raises(UserError, match="--confidence-threshold must be from 0 to 1; got 2"):
        set_threshold(cfg, 2.0, given=())


def test_an_empty_path_is_refused() -> None:
    assert output_path("new") == Path("new")
    with pytest.raises(argparse.ArgumentTypeError, match="Is a shell variable unset"):
        output_path("")
