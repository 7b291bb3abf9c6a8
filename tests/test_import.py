"""What `import nl_detectron` costs beside the Detectron2 that it extends."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, time
start = time.perf_counter()
import detectron2.modeling
there = time.perf_counter()
import nl_detectron
end = time.perf_counter()
print(json.dumps([there - start, end - there, sorted(sys.modules)]))
"""
HEAVY = ("matplotlib", "onnx", "onnxruntime", "onnxscript", "tensorboard", "hypothesis", "pytest")


@pytest.mark.slow
def test_import_is_cheap_and_brings_nothing_heavy() -> None:
    """At most 0.3 s beside Detectron2's own 3 s: a tenth of it, in the same process."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    detectron2, ours, modules = json.loads(printed.splitlines()[-1])
    assert ours < 0.1 * detectron2
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.slow
def test_imports_print_no_warning() -> None:
    """Of Detectron2, if one of our packages is imported before it."""
    command = [sys.executable, "-c", "import nl_detectron_attention"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
