"""`python -m benchmarks.pinned CORE COMMAND...` becomes COMMAND: on one core, with all open files allowed."""

import os
import resource
import sys


def main() -> None:
    core, *command = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {int(core)})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
