#!/usr/bin/env python
"""Prove this project on a GPU: tests, times, and trainings in three precisions, within 9 minutes.

Each step has a time limit and a log of its own, so that one that fails leaves the others. The results are
in gpu.json, and on a page, gpu.md, which says for each bar whether it is met; the exit code is 1 if one is
not. It needs no network, and no environment of `make setup` where Detectron2 and the packages of this
repository can be imported.

    python tools/gpu.py --output output/gpu
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from benchmarking.gpu_page import page

from nl_detectron.engine import program_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write

ROOT = Path(__file__).parents[1]
FAR = "projects/far_context"


@dataclass
class Step:
    """Command lines of Python, one after the other, with {output} for the folder; `limit` is in seconds."""

    name: str
    limit: float
    commands: tuple[str, ...]
    seconds: float = field(default=0.0, init=False)
    outcome: str = field(default="not run", init=False)
    process: subprocess.Popen | None = field(default=None, init=False, repr=False)

    def report(self) -> dict[str, object]:
        return {"name": self.name, "outcome": self.outcome, "seconds": self.seconds}

    def kill(self) -> None:
        """End what runs of it, with its own processes."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def steps() -> list[list[Step]]:
    """Those that measure times have the GPU for themselves; those of a group run at the same time."""
    sanity = (
        f"{FAR}/generate.py --mode far",
        f"{FAR}/generate.py --mode near",
        f"{FAR}/train_net.py --overwrite --config-file {FAR}/configs/mask_rcnn_R_50_FPN_nl_far.yaml SEED 1 "
        "OUTPUT_DIR {output}/sanity DATASETS.TEST ('shapes_far_val',) DATALOADER.NUM_WORKERS 4 "
        "TEST.EXPECTED_RESULTS [['bbox','AP50',100,20]]",
    )
    return [
        [Step("operation", 145, ("-m benchmarking.on_gpu {output}/operation.json",))],
        [Step("models", 75, ("-m benchmarking.models_on_gpu {output}/models.json",))],
        [
            Step("tests", 200, ("-m pytest -q -n 4 -m cuda --tb short -W ignore tests",)),
            Step("shapes", 230, ("-m benchmarking.shapes_on_gpu {output}/shapes.json",)),
            Step("sanity", 310, sanity),
        ],
    ]


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/gpu"), help="folder of the results")
    names = [step.name for group in steps() for step in group]
    parser.add_argument("--only", nargs="+", choices=names, help="leave the other steps out")
    args = parser.parse_args()
    with one_line_errors():
        if not torch.cuda.is_available():
            raise UserError("tools/gpu.py needs a GPU, and there is none.")
        args.output.mkdir(parents=True, exist_ok=True)
        if any(args.output.iterdir()) and not (args.output / "gpu.json").is_file():
            raise UserError(
                f"--output {args.output} holds other files than this tool's. Name another folder."
            )
        (args.output / "gpu.json").touch()
        remove_working_files(args.output)  # of a run that was interrupted
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # of a job's limit: its steps end, too
        groups = [[step for step in group if not args.only or step.name in args.only] for group in steps()]
        for group in groups:
            with ThreadPoolExecutor(max(1, len(group))) as pool:
                try:
                    list(pool.map(lambda step: run(step, args.output.resolve()), group))
                except KeyboardInterrupt:
                    for step in group:
                        step.kill()
                    raise
        found = {"steps": [step.report() for group in groups for step in group]}
        is_met = write(found, args.output)
    sys.exit(0 if is_met else 1)


def run(step: Step, output: Path) -> None:
    """Run a step to its end or its limit, and say how it went."""
    path = os.pathsep.join([str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])])
    data = output / "datasets"
    variables = {**os.environ, "PYTHONPATH": path, "DETECTRON2_DATASETS": str(data), "KINETO_LOG_LEVEL": "99"}
    start = time.monotonic()
    step.outcome = "passed"
    (output / f"{step.name}.json").unlink(missing_ok=True)  # of an earlier run
    with (output / f"{step.name}.log").open("w") as log:
        for command in step.commands:
            words = [word.replace("{output}", str(output)) for word in command.split()]
            left = step.limit - (time.monotonic() - start)
            step.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *words],
                cwd=ROOT,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its own processes can be ended with it
            )
            try:
                step.process.wait(timeout=left)
            except subprocess.TimeoutExpired:
                step.kill()
                step.outcome = f"not finished after {step.limit:.0f} s"
                break
            if step.process.returncode:
                step.outcome = f"failed, exit code {step.process.returncode}"
                break
    step.seconds = time.monotonic() - start
    print(f"{step.name}: {step.outcome}, {step.seconds:.0f} s", flush=True)


def remove_working_files(output: Path) -> None:
    """Checkpoints and pictures."""
    for name in ("shapes", "sanity", "datasets"):
        shutil.rmtree(output / name, ignore_errors=True)


def write(found: dict[str, object], output: Path) -> bool:
    """Write gpu.json and gpu.md; whether all bars are met."""
    names = {step["name"] for step in found["steps"]}  # not those of an earlier run
    for name in ("operation", "models", "shapes"):
        file = output / f"{name}.json"
        found[name] = json.loads(file.read_text()) if name in names and file.is_file() else []
    log = output / "tests.log"
    lines = log.read_text().splitlines() if "tests" in names and log.is_file() else []
    found["tests"] = next((line for line in reversed(lines) if " passed" in line or " failed" in line), "")
    remove_working_files(output)
    text, is_met = page(found)
    for name, content in (("gpu.json", json.dumps(found)), ("gpu.md", text)):
        with atomic_write(output / name) as unfinished:
            unfinished.write_text(content)
    print(text)
    return is_met


if __name__ == "__main__":
    main()
