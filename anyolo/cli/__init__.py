"""The command line: ``anyolo VERB key=value ...`` or ``anyolo VERB --key value ...``."""

from anyolo.cli.command import main

__all__ = ["main"]
