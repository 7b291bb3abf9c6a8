"""Training and evaluation: Detectron2's own, from the command line."""

from nl_detectron_cli.arguments import add_detection_flags, output_path, program_parser, tool_parser

from .checks import read_dataset
from .config_loading import flat_pairs, merge_options
from .evaluation import evaluation_tasks
from .flags import find_config, read_config, set_confidence_threshold
from .launcher import main, train_or_evaluate
from .run_record import Run, read_run
from .trainer import Trainer
