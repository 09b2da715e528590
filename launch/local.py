"""Starts several workers on this machine; the same as `python -m inception_tf.launch`."""

import sys

from inception_tf import launch

if __name__ == "__main__":
    sys.exit(launch.main())
