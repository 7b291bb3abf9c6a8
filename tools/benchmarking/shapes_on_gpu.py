"""`shapes_on_gpu.py FILE`: box and mask AP on shapes of 640 pixels in three precisions, into a JSON file.

Trained on the GPU in each; the models trained in float32 are also evaluated in bfloat16, and on the CPU.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from nl_detectron_shapes import write_shapes

from nl_detectron.files import atomic_write

ROOT = Path(__file__).parents[2]
CONFIG = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
SIZE = 640
OPTIONS = (  # the light config's, four times as large, with fewer steps
    f"INPUT.MIN_SIZE_TRAIN ({SIZE},) INPUT.MIN_SIZE_TEST {SIZE} INPUT.MAX_SIZE_TRAIN 1067 "
    "INPUT.MAX_SIZE_TEST 1067 MODEL.ANCHOR_GENERATOR.SIZES [[32],[64],[128],[256],[512]] "
    "DATALOADER.NUM_WORKERS 2 SOLVER.CHECKPOINT_PERIOD 100000 SOLVER.MAX_ITER 300 SOLVER.STEPS (225,)"
).split()
PRECISIONS = {
    "float32": (),
    "bfloat16": ("SOLVER.AMP.PRECISION", "bfloat16"),
    "float16": ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "float16"),
}
TRAININGS = (*((1, name) for name in PRECISIONS), (2, "float32"), (3, "float32"))


def train(folder: Path, seed: int, precision: str) -> dict[str, float]:
    """AP by task, after a training with a seed."""
    run = folder / f"{precision}_{seed}"
    return _train_net(folder, run, *OPTIONS, *PRECISIONS[precision], "SEED", str(seed))


def evaluate(folder: Path, seed: int, precision: str, device: str) -> dict[str, float]:
    """AP by task of the model trained in float32 with a seed."""
    weights = str(folder / f"float32_{seed}" / "model_final.pth")
    run = folder / f"float32_{seed}_{precision}_{device}"
    options = ("MODEL.WEIGHTS", weights, "MODEL.DEVICE", device, *PRECISIONS[precision])
    return _train_net(folder, run, "--eval-only", *OPTIONS, *options)


def _train_net(folder: Path, run: Path, *words: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", str(ROOT / "train_net.py"), "--config-file", CONFIG]
    variables = {**os.environ, "DETECTRON2_DATASETS": str(folder), "OMP_NUM_THREADS": "4"}
    done = subprocess.run(
        [*command, *words, "OUTPUT_DIR", str(run)], env=variables, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{run.name}: {done.stderr[-2000:]}")
    # Three lines for a task: its name, "AP,AP50,...", and their values
    log = (run / "log.txt").read_text()
    lines = [line.split("copypaste: ")[1] for line in log.splitlines() if "copypaste: " in line]
    tasks, values = lines[::3], lines[2::3]
    return {
        task.removeprefix("Task: "): float(each.split(",")[0])
        for task, each in zip(tasks, values, strict=True)
    }


def main() -> None:
    file = Path(sys.argv[1])
    folder = file.with_suffix("")
    write_shapes(folder / "shapes", train=200, val=60, size=SIZE)
    cases = [(seed, "bfloat16", device) for seed in (1, 2, 3) for device in ("cuda", "cpu")]
    rows = []
    with ThreadPoolExecutor(len(cases)) as pool:
        trained = {pool.submit(train, folder, *each): each for each in TRAININGS}
        for done in as_completed(trained):
            row = dict(zip(("seed", "trained in"), trained[done], strict=True))
            rows.append(row | {"AP": done.result()})
            _write(rows, file)
        evaluated = {pool.submit(evaluate, folder, *each): each for each in cases}
        for done in as_completed(evaluated):
            seed, name, device = evaluated[done]
            row = {"seed": seed, "trained in": "float32", "evaluated in": name, "device": device}
            rows.append(row | {"AP": done.result()})
            _write(rows, file)


def _write(rows: list[dict], file: Path) -> None:
    """What is measured stays, if time runs out."""
    with atomic_write(file) as unfinished:
        unfinished.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
