"""atheris has wheels for Linux on x86-64 only (see pyproject.toml); elsewhere hypothesis fuzzes alone."""

import platform
import sys

HAS_ATHERIS = sys.platform == "linux" and platform.machine() == "x86_64"

collect_ignore = [] if HAS_ATHERIS else ["test_atheris.py"]
