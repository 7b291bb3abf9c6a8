"""`models_on_gpu.py FILE`: training steps of Mask R-CNN with and without a block, into a JSON file."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarking.measure import compare
from benchmarking.models import build_pair, run
from nl_detectron.files import atomic_write

MODELS = ("R_50", "R_101")
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
BATCH = 2
ROUNDS = 25


def main() -> None:
    rows = []
    device = torch.device("cuda")
    cases = [(name, dtype) for name in MODELS for dtype in PRECISIONS]
    for name, dtype in tqdm(cases, "models", mininterval=2):
        pair = build_pair(name, device)
        runs = [partial(run, model, dtype, training=True, batch=BATCH) for model in pair]
        ours, baseline = compare(runs, device, seconds=0, rounds=ROUNDS)
        row = {"model": name, "precision": str(dtype).removeprefix("torch.")}
        for contestant, result in (("+1 NL", ours), ("baseline", baseline)):
            row[contestant] = {"ms": 1e3 * result.seconds, "MB": result.peak / 1e6}
        rows.append(row)
        with atomic_write(Path(sys.argv[1])) as unfinished:  # what is measured stays, if time runs out
            unfinished.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
