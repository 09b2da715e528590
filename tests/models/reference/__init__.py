"""A second forward pass of the released networks, and writers of the files they were released in.

Written from tests/golden/layers/*.csv and the wiring of the authors' code, with plain TensorFlow
operations and nothing of the package, so that a wrong table there cannot be wrong here as well.
"""
