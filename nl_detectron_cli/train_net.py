"""Train and evaluate: the program of train_net.py, `nl-detectron train` and `nl-detectron eval`."""

from .arguments import train_net_parser


def main() -> None:
    args = train_net_parser().parse_args()
    from nl_detectron.engine import train_or_evaluate  # after parsing: see __init__

    train_or_evaluate(args, register_shapes)


def register_shapes() -> None:
    """Register shapes_train and the like, in each process of a run."""
    import nl_detectron_shapes  # noqa: F401  (importing it does)
