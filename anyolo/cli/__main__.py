"""``python -m anyolo.cli``, for a shell that does not find the command ``anyolo``."""

import sys

from anyolo.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
