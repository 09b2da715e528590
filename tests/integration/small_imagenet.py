"""A door of inception_tf where ImageNet has 40 validation images, 6 of them blacklisted.

    python -m tests.integration.small_imagenet train|evaluate <the door's arguments>

The package is patched from outside and then run as it is: the product has no switch for this.
"""

import importlib
import sys

NUM_VALIDATION = 40
BLACKLISTED = (1, 7, 8, 20, 33, 40)


def main():
    name = sys.argv.pop(1)
    door = importlib.import_module(f"inception_tf.{name}")  # first: it imports TensorFlow quietly
    from inception_tf import flags
    from inception_tf.evaluation import official_lists

    official_lists.NUM_VALIDATION = NUM_VALIDATION
    official_lists.NUM_BLACKLISTED = len(BLACKLISTED)
    flags.run(door.main, takes_places=name == "evaluate")


if __name__ == "__main__":
    main()
