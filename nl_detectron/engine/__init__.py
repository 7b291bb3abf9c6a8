"""Training and evaluation: Detectron2's own, from the command line."""

from .checks import read_dataset
from .config_loading import flat_pairs, merge_options
from .evaluation import evaluation_tasks
from .flags import (
    add_detection_flags,
    find_config,
    output_path,
    read_config,
    set_confidence_threshold,
    tool_parser,
)
from .launcher import main
from .run_record import Run, read_run
from .trainer import Trainer
