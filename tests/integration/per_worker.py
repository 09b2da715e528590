"""Runs a command as one worker of several, with what differs on that worker.

    python per_worker.py '{"1": {"arguments": ["--x"], "directory": "/d"}}' PROGRAM ARGUMENT ...

The keys are the workers' indices in TF_CONFIG.
"""

import json
import os
import sys


def main():
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    own = json.loads(sys.argv[1]).get(str(index), {})
    os.chdir(own.get("directory", "."))
    command = sys.argv[2:] + own.get("arguments", [])
    os.execvpe(command[0], command, os.environ)


if __name__ == "__main__":
    main()
