"""A training that was killed, interrupted or lost its last checkpoint goes on as if nothing had been."""

import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from runs import KEYPOINT, MASK, ROOT, arguments, differences, finish, load, run_here, start

STEPS = ("SEED", "1", "SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "2")

# Run as a script: train_net.py that kills itself, at a moment that is its first argument.
KILLED = """
import os, pathlib, signal, sys, torch
from nl_detectron.engine import Trainer, main

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dies_at(call, moment, count):
    def counted(*args, **kwargs):
        count[0] -= 1
        if count[0] == 0:
            moment(*args)
        return call(*args, **kwargs)
    return counted

def half_written(content, file):
    file.write(os.urandom(1_000_000))
    file.flush()
    die()

def before_the_tag(path, content):
    if content != "model_0000003.pth":
        raise AssertionError(content)
    die()

moment = sys.argv[1]
if moment == "within a step":  # the fifth, after the forward pass
    torch.Tensor.backward = dies_at(torch.Tensor.backward, lambda *a: die(), [5])
elif moment == "within a checkpoint":
    torch.save = dies_at(torch.save, half_written, [2])
elif moment == "between a checkpoint and its tag":
    pathlib.Path.write_text = dies_at(pathlib.Path.write_text, before_the_tag, [2])
main(sys.argv[2:])
"""


@pytest.fixture(scope="module", params=[MASK, KEYPOINT], ids=["mask", "keypoint"])
def uninterrupted(
    request: pytest.FixtureRequest, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict]:
    """A config, and the last checkpoint of a training of it that nothing interrupted."""
    output = tmp_path_factory.mktemp("uninterrupted")
    run_here(*arguments(request.param, output, *STEPS))
    return request.param, load(output / "model_final.pth")


@pytest.mark.parametrize(
    ("moment", "resumed_at"),
    [("within a step", 4), ("within a checkpoint", 2), ("between a checkpoint and its tag", 2)],
)
def test_killed_and_resumed_is_never_killed(
    moment: str,
    resumed_at: int,
    uninterrupted: tuple[str, dict],
    shapes_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Weights, momentum, learning rate, BN statistics, data order and all that is drawn, to the bit."""
    config, expected = uninterrupted
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    output = tmp_path / "run"
    command = (str(script), moment, *arguments(config, output, "DATALOADER.NUM_WORKERS", "2", *STEPS))
    killed = start(shapes_root, *command, PYTHONPATH=str(ROOT))
    printed = finish(killed)
    assert killed.returncode == -signal.SIGKILL, printed
    assert (output / "last_checkpoint").read_text() == f"model_{resumed_at - 1:07d}.pth"
    assert (moment == "within a checkpoint") == any(output.glob(".unfinished-*"))

    caplog.set_level(logging.INFO, logger="detectron2")
    run_here(*arguments(config, output, "--resume", *STEPS))
    assert f"Starting training from iteration {resumed_at}" in caplog.text
    assert differences(load(output / "model_final.pth"), expected) == []
    assert not any(output.glob(".unfinished-*"))


@pytest.fixture
def checkpoints(shapes_root: Path, tmp_path: Path) -> Path:
    """A folder with the checkpoints after steps 1, 3 and 4, the last one called model_final."""
    run_here(*arguments(MASK, tmp_path, *STEPS))
    return tmp_path


@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_newest_whole_one_used(
    damage: str, checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = checkpoints / "model_final.pth"
    expected, content = load(last), bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"empty": b"", "truncated": content[: len(content) // 2], "one bit": content}
    last.unlink()
    if damage in damaged:
        last.write_bytes(damaged[damage])
    caplog.set_level(logging.INFO, logger="detectron2")
    run_here(*arguments(MASK, checkpoints, "--resume", *STEPS))
    assert "Damaged or gone: model_final.pth" in caplog.text
    assert f"The last whole checkpoint is {checkpoints / 'model_0000003.pth'}" in caplog.text
    assert "Starting training from iteration 4" in caplog.text
    assert differences(load(last), expected) == []


def test_nothing_whole_is_refused(checkpoints: Path) -> None:
    """A training that begins anew would write over what may still be of use."""
    for path in checkpoints.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(SystemExit, match=r"must hold a whole checkpoint .*: model_final.pth, model_0000001"):
        run_here(*arguments(MASK, checkpoints, "--resume", *STEPS))


def test_a_whole_file_that_is_no_checkpoint_is_left_alone(
    shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": {}}, tmp_path / "model_pretrained.pth")
    run_here(*arguments(MASK, tmp_path, "--resume", "SOLVER.MAX_ITER", "1"))
    assert f"--resume: there is no checkpoint in {tmp_path}" in caplog.text
    assert "Damaged" not in caplog.text


def test_killed_between_the_last_checkpoint_and_the_final_one(shapes_root: Path, tmp_path: Path) -> None:
    """Nothing is left to train, and Detectron2 by itself would never write the final one."""
    steps = ("SEED", "1", "SOLVER.MAX_ITER", "2", "SOLVER.CHECKPOINT_PERIOD", "2")
    run_here(*arguments(MASK, tmp_path, *steps))
    expected = load(tmp_path / "model_final.pth")
    (tmp_path / "model_final.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    run_here(*arguments(MASK, tmp_path, "--resume", *steps))
    assert differences(load(tmp_path / "model_final.pth"), expected) == []


def test_nothing_to_resume_says_so(
    shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_here(*arguments(MASK, tmp_path, "--resume", "SOLVER.MAX_ITER", "1"))
    expected = f"--resume: there is no checkpoint in {tmp_path}, so this starts at iteration 0, from random"
    assert expected in caplog.text


def test_without_seed_a_resume_has_the_seed_of_the_start(
    shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="nl_detectron")
    output = tmp_path / "run"
    run_here(*arguments(MASK, output, "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2"))
    expected = load(output / "model_final.pth")
    seed = yaml.safe_load((output / "config.yaml").read_text())["SEED"]
    assert seed >= 0
    assert f"SEED {seed}, 1 process" in caplog.text
    (output / "last_checkpoint").write_text("model_0000001.pth")
    run_here(*arguments(MASK, output, "--resume", "SOLVER.MAX_ITER", "4"))
    assert differences(load(output / "model_final.pth"), expected) == []


def test_what_is_not_as_it_was_is_told(checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = ("SEED", "2", "SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.BASE_LR", "0.1")
    run_here(*arguments(MASK, checkpoints, "--resume", "DATALOADER.NUM_WORKERS", "1", *changed))
    changes = "SEED was 1 and is 2; SOLVER.BASE_LR was 0.02 and is 0.1; SOLVER.MAX_ITER was 5 and is 6"
    assert f"This does not resume the same training: {changes}\n" in caplog.text


def test_precise_bn_goes_on_with_its_batches(shapes_root: Path, tmp_path: Path) -> None:
    precise = "TEST.PRECISE_BN.ENABLED True TEST.PRECISE_BN.NUM_ITER 2 TEST.EVAL_PERIOD 2".split()
    run_here(*arguments(MASK, tmp_path, *precise, *STEPS))
    expected = load(tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    run_here(*arguments(MASK, tmp_path, "--resume", *precise, *STEPS))
    assert differences(load(tmp_path / "model_final.pth"), expected) == []


@pytest.mark.parametrize("uninterrupted", [MASK], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_training_ends_soon_with_a_checkpoint(
    number: int, uninterrupted: tuple[str, dict], shapes_root: Path, tmp_path: Path
) -> None:
    """As a terminal's Ctrl-C, which reaches the workers too."""
    config, expected = uninterrupted
    output = tmp_path / "run"
    command = (str(ROOT / "train_net.py"), *arguments(config, output, *STEPS, "DATALOADER.NUM_WORKERS", "1"))
    training = start(shapes_root, *command)
    while not (output / "model_0000001.pth").exists():
        assert training.poll() is None
        time.sleep(0.01)
    interrupted = time.monotonic()
    os.killpg(training.pid, number) if number == signal.SIGINT else training.send_signal(number)
    printed = finish(training)
    assert time.monotonic() - interrupted < 5
    assert training.returncode == 130
    assert printed.endswith("interrupted\n")
    assert "Traceback" not in printed
    assert f"{signal.Signals(number).name}: this ends after the step that is running" in printed
    last = load(output / (output / "last_checkpoint").read_text())
    assert 1 <= last["iteration"] < 4

    run_here(*arguments(config, output, "--resume", *STEPS))
    assert differences(load(output / "model_final.pth"), expected) == []
