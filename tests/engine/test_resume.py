"""A training that was killed, interrupted or lost its last checkpoint goes on as if nothing had been."""

import logging
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.config import CfgNode
from runs import KEYPOINT, MASK, ROOT, STEPS, arguments, differences, finish, load, run_here, start

from nl_detectron.checkpoint import last_intact_checkpoint
from nl_detectron.engine import Trainer, main, read_run
from nl_detectron.engine.resume import differences as changes
from nl_detectron.engine.resume import fix_seed, keep_newest, setting
from nl_detectron.errors import UserError

KILLED = str(Path(__file__).with_name("killed_training.py"))


def kill_and_resume(config: str, moment: str, root: Path, output: Path, *options: str) -> dict:
    """The last checkpoint of a training that is killed in its last step and resumed."""
    words = arguments(config, output, *options, "DATALOADER.NUM_WORKERS", "1", *STEPS)
    killed = start(root, KILLED, moment, *words)
    printed = finish(killed)
    assert killed.returncode == -signal.SIGKILL, printed
    assert (output / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (moment == "within a checkpoint") == any(output.glob(".unfinished-*"))
    run_here(*arguments(config, output, "--resume", *options, *STEPS))
    assert not any(output.glob(".unfinished-*"))
    return load(output / "model_final.pth")


def test_killed_and_resumed_is_never_killed(
    trained: Path, shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights, momentum, learning rate, BN statistics, data order and all that is drawn, to the bit."""
    caplog.set_level(logging.INFO, logger="detectron2")
    resumed = kill_and_resume(MASK, "within a step", shapes_root, tmp_path / "run")
    assert "Starting training from iteration 2" in caplog.text
    assert differences(resumed, load(trained / "model_final.pth")) == []


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "moment", "options"),
    [
        (MASK, "within a checkpoint", ("SOLVER.ACCUMULATE", "2")),
        (KEYPOINT, "between a checkpoint and its tag", ()),
    ],
)
def test_killed_at_any_moment(
    config: str, moment: str, options: tuple[str, ...], shapes_root: Path, tmp_path: Path
) -> None:
    """A Mask R-CNN within a step is killed by the test above."""
    run_here(*arguments(config, tmp_path / "never", *options, *STEPS))
    resumed = kill_and_resume(config, moment, shapes_root, tmp_path / "run", *options)
    assert differences(resumed, load(tmp_path / "never" / "model_final.pth")) == []


@pytest.mark.long
@pytest.mark.slow
def test_precise_bn_goes_on_with_its_batches(shapes_root: Path, tmp_path: Path) -> None:
    precise = "TEST.PRECISE_BN.ENABLED True TEST.PRECISE_BN.NUM_ITER 2 TEST.EVAL_PERIOD 2".split()
    run_here(*arguments(MASK, tmp_path / "never", *precise, *STEPS))
    resumed = kill_and_resume(MASK, "within a step", shapes_root, tmp_path / "run", *precise)
    assert differences(resumed, load(tmp_path / "never" / "model_final.pth")) == []


def test_sigterm_ends_a_training_after_its_step_with_a_checkpoint(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run_step = Trainer.run_step

    def interrupted(trainer: Trainer) -> None:
        if trainer.iter == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        run_step(trainer)

    monkeypatch.setattr(Trainer, "run_step", interrupted)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as stopped:
        run_here(*arguments(MASK, tmp_path, *STEPS))
    assert stopped.value.code == 130
    assert load(tmp_path / (tmp_path / "last_checkpoint").read_text())["iteration"] == 0
    printed = capfd.readouterr().err
    assert "SIGTERM received; stopping after the current step\n" in printed
    assert printed.endswith("interrupted\n")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.slow
def test_interrupted_and_resumed_is_never_interrupted(shapes_root: Path, tmp_path: Path) -> None:
    """As by a terminal's Ctrl-C, which reaches the workers too."""
    steps = ("SEED", "1", "SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "2")
    run_here(*arguments(MASK, tmp_path / "never", *steps))
    output = tmp_path / "run"
    words = arguments(MASK, output, *steps, "DATALOADER.NUM_WORKERS", "1")
    training = start(shapes_root, str(ROOT / "train_net.py"), *words)
    while not (output / "model_0000001.pth").exists():
        assert training.poll() is None
        time.sleep(0.01)
    os.killpg(training.pid, signal.SIGINT)
    printed = finish(training)
    assert training.returncode == 130
    assert printed.endswith("interrupted\n")
    assert "Traceback" not in printed
    assert 1 <= load(output / (output / "last_checkpoint").read_text())["iteration"] < 7
    run_here(*arguments(MASK, output, "--resume", *steps))
    expected = load(tmp_path / "never" / "model_final.pth")
    assert differences(load(output / "model_final.pth"), expected) == []


@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_last_intact_one_used(
    damage: str, copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = copied / "model_final.pth"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"empty": b"", "truncated": content[: len(content) // 2], "one bit": content}
    assert last_intact_checkpoint(copied) == last
    last.unlink()
    if damage in damaged:
        last.write_bytes(damaged[damage])
    torch.save({"model": {}}, copied / "model_pretrained.pth")  # no training's: left alone
    assert last_intact_checkpoint(copied) == copied / "model_0000001.pth"
    (message,) = {record.getMessage() for record in caplog.records}
    assert message.startswith("Damaged or gone: model_final.pth. The last intact checkpoint is")


def test_nothing_intact_is_refused(copied: Path) -> None:
    """A training that begins anew would write over what may still be of use."""
    for path in copied.glob("*.pth"):
        path.unlink()
        path.touch()
    with pytest.raises(SystemExit) as stopped:
        main(arguments(MASK, copied, "--resume", *STEPS))
    expected = f"error: {copied} has no intact checkpoint to --resume from. Damaged or gone: model_final.pth"
    assert stopped.value.code.startswith(expected)


def test_nothing_to_resume_says_so(small_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(small_cfg.OUTPUT_DIR)
    torch.save({"model": {}}, folder / "model_pretrained.pth")
    Trainer(small_cfg).resume_or_load(resume=True)
    assert f"--resume: no checkpoint in {folder}; starting at iteration 0 from random weights" in caplog.text
    assert "Damaged" not in caplog.text


def test_killed_between_the_last_checkpoint_and_the_final_one(copied: Path, small_cfg: CfgNode) -> None:
    """Nothing is left to train, and Detectron2 by itself would never write the final one."""
    expected = load(copied / "model_final.pth")
    (copied / "model_final.pth").rename(copied / "model_0000002.pth")
    (copied / "last_checkpoint").write_text("model_0000002.pth")
    small_cfg.OUTPUT_DIR = str(copied)
    Trainer(small_cfg).resume_or_load(resume=True)
    assert differences(load(copied / "model_final.pth"), expected) == []


def test_killed_within_the_last_evaluation(copied: Path) -> None:
    """The resume has no step to do, and its evaluation is that of the last step."""
    run_here(*arguments(MASK, copied, "--resume", *STEPS))
    run = read_run(copied)
    assert run.finished
    assert "bbox/AP" in run.history[run.cfg.SOLVER.MAX_ITER]


def test_without_seed_a_resume_has_the_seed_of_the_start(copied: Path, small_cfg: CfgNode) -> None:
    small_cfg.OUTPUT_DIR, small_cfg.SEED = str(copied), -1
    resumed, new = small_cfg.clone(), small_cfg.clone()
    fix_seed(resumed, resume=True)
    fix_seed(new, resume=False)
    assert resumed.SEED == 1
    assert new.SEED > 1


def test_what_is_not_as_it_was_is_told(small_cfg: CfgNode) -> None:
    changed = small_cfg.clone()
    changed.SEED, changed.SOLVER.BASE_LR, changed.DATALOADER.NUM_WORKERS = 2, 0.1, 1
    changed.MODEL.WEIGHTS, changed.TEST.EVAL_PERIOD, changed.VIS_PERIOD = "other.pth", 7, 20
    saved = {**setting(small_cfg), "processes": 2}
    expected = {
        "SEED was 1 and is 2",
        "SOLVER.BASE_LR was 0.02 and is 0.1",
        "processes x SOLVER.ACCUMULATE was 2 and is 1",
    }
    assert {text for _, text in changes(saved, changed)} == expected
    assert not list(changes({}, changed))  # of a checkpoint that says nothing
    changed.TEST.PRECISE_BN.ENABLED = True  # evaluations then set the statistics of BN
    assert "TEST.EVAL_PERIOD was 0 and is 7" in {text for _, text in changes(saved, changed)}


def test_mixed_precision_may_change(
    copied: Path, small_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On, with a fresh scale of the gradients; on as before, with the scale of the checkpoint; and off."""
    monkeypatch.setattr("torch.cuda.amp.GradScaler", lambda: torch.amp.GradScaler("cpu"))
    small_cfg.OUTPUT_DIR, small_cfg.SOLVER.MAX_ITER = str(copied), 9
    mixed = small_cfg.clone()
    mixed.SOLVER.AMP.ENABLED, mixed.SOLVER.AMP.PRECISION = True, "bfloat16"

    def resume(cfg: CfgNode) -> tuple[Trainer, list[str]]:
        caplog.clear()
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=True)
        assert trainer.start_iter == 3
        assert any("momentum_buffer" in state for state in trainer.optimizer.state.values())
        return trainer, [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    trainer, (changed, scale) = resume(mixed)
    assert "SOLVER.AMP.ENABLED was False and is True; SOLVER.AMP.PRECISION was  and is bfloat16" in changed
    assert scale == "The checkpoint has no gradient scale; starting with a new one."
    scaler = trainer._trainer.grad_scaler
    assert scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale()
    scaler.load_state_dict({**scaler.state_dict(), "scale": 8.0})
    trainer.checkpointer.save("model_0000002", iteration=2)
    trainer, told = resume(mixed)
    assert trainer._trainer.grad_scaler.get_scale() == 8
    assert told == []
    _, (changed,) = resume(small_cfg)
    assert "SOLVER.AMP.ENABLED was True and is False" in changed


def test_a_damaged_checkpoint_does_not_push_out_the_intact_one(tmp_path: Path) -> None:
    """That which is resumed, after iteration 3."""
    for k in (2, 3, 4):
        (tmp_path / f"model_{k:07d}.pth").touch()
    hook = SimpleNamespace(max_to_keep=1)
    keep_newest(hook, tmp_path, iteration=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model_0000003.pth", "model_0000004.pth"]
    assert hook.recent_checkpoints == [str(tmp_path / "model_0000003.pth")]


def test_a_new_schedule_holds_from_where_it_resumes(
    copied: Path, small_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning rates are those that a training with this config has at this step; momentum stays."""
    small_cfg.OUTPUT_DIR, small_cfg.SOLVER.MAX_ITER = str(copied), 9
    small_cfg.SOLVER.BASE_LR, small_cfg.SOLVER.STEPS = 0.5, (2,)
    monkeypatch.setattr(Trainer, "new_schedule", True)
    trainer = Trainer(small_cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 3
    fresh = Trainer(small_cfg)
    for _ in range(3):
        fresh.optimizer.step()
        fresh.scheduler.step()
    rates, expected = ([g["lr"] for g in each.optimizer.param_groups] for each in (trainer, fresh))
    assert rates == pytest.approx(expected)
    trainer.optimizer.step()
    trainer.scheduler.step()
    fresh.scheduler.step()
    rates, expected = ([g["lr"] for g in each.optimizer.param_groups] for each in (trainer, fresh))
    assert rates == pytest.approx(expected)
    assert any("momentum_buffer" in state for state in trainer.optimizer.state.values())


def test_without_the_flag_it_is_refused(copied: Path, small_cfg: CfgNode) -> None:
    small_cfg.OUTPUT_DIR, small_cfg.SOLVER.BASE_LR = str(copied), 0.5
    with pytest.raises(
        UserError, match="SOLVER.BASE_LR was 0.02 and is 0.5. Restore it, or give --new-schedule"
    ):
        Trainer(small_cfg).resume_or_load(resume=True)


@pytest.mark.parametrize("step", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["within", "last"])
def test_a_failing_evaluation_loses_nothing(
    step: int,
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The training is saved first, the log says how to evaluate it, and the error keeps its traceback."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Trainer, "test", fail)
    words = [*STEPS, *f"SOLVER.CHECKPOINT_PERIOD 100 TEST.EVAL_PERIOD {(step + 1) % 3}".split()]
    with pytest.raises(ZeroDivisionError):
        run_here(*arguments(MASK, tmp_path, *words))
    name = f"model_{step:07d}.pth" if step < 2 else "model_final.pth"
    assert last_intact_checkpoint(tmp_path) == tmp_path / name
    command = f"--eval-only --config-file {tmp_path / 'config.yaml'} MODEL.WEIGHTS {tmp_path / name}"
    assert command in caplog.text
