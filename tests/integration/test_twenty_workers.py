"""The paper's 20 replicas as 20 processes of the launcher: the bits of one process."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.integration import test_topology
from tests.integration.run_steps import NUM_REPLICAS

TIMEOUT_SECS = 1800
JOB = {"name": "main", "num_steps": 50, "data": "records"}

pytestmark = pytest.mark.slow


def test_twenty_workers_have_the_bits_of_one_after_50_steps(tmp_path):
    began = time.monotonic()
    launched = subprocess.run(
        [
            sys.executable, "-m", "inception_tf.launch", f"--workers={NUM_REPLICAS}",
            "--max_restarts=0", "--",
            sys.executable, str(test_topology.DRIVER), "--devices=1",
            f"--out={tmp_path}/worker-{{worker}}", json.dumps(JOB),
        ],
        cwd=test_topology.CHECKOUT, capture_output=True, text=True, timeout=TIMEOUT_SECS,
        env={**os.environ, "PYTHONPATH": str(test_topology.CHECKOUT)}, check=False,
    )  # fmt: skip
    print(f"20 workers: {time.monotonic() - began:.0f} s\n{launched.stdout[-2000:]}")
    assert launched.returncode == 0, launched.stdout + launched.stderr
    out = tmp_path / "alone"
    alone = test_topology.run(out, devices=1, jobs=[JOB], timeout_secs=TIMEOUT_SECS)["main"]
    assert min(test_topology.movements(alone).values()) > 1e-3
    for worker in range(NUM_REPLICAS):
        many = test_topology.read(tmp_path / f"worker-{worker}" / "main.npz")
        assert test_topology.differing(many, alone) == set()
        test_topology.assert_same_start(many, alone)
