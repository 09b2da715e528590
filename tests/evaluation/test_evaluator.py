"""Every image counts once, whatever the devices, batches and their order."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from inception_tf.errors import ConfigError
from inception_tf.evaluation.evaluator import EvaluationSpec, evaluation_steps
from inception_tf.launch_plan import free_ports

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
SCRIPT = HERE / "evaluate_on_devices.py"


def start(environment=None):
    paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "TF_CONFIG"},
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **(environment or {}),
    }
    return subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results_of(process):
    try:
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def results():
    return results_of(start())


@pytest.fixture(scope="module")
def truth():
    """(top-1, top-5, mean loss) of the script's network, in NumPy and float64."""
    sys.path.insert(0, str(HERE))
    try:
        import evaluate_on_devices as script
    finally:
        sys.path.remove(str(HERE))
    model = script.build_model()
    images, labels = script.images_and_labels()

    def evaluate(shift):
        weights = {
            variable.path: variable.numpy().astype(np.float64) + shift
            for variable in model.variables
            if not variable.path.endswith("seed_generator_state")
        }
        logits = numpy_logits(weights, images.astype(np.float64))
        order = np.argsort(-logits, axis=1, kind="stable")
        ranks = np.argmax(order == labels[:, None], axis=1)
        log_sums = np.log(np.exp(logits).sum(axis=1))
        losses = log_sums - logits[np.arange(len(labels)), labels]
        probabilities = np.exp(logits - log_sums[:, None])
        counted = np.arange(50) % 4 != 1
        return (
            (ranks < 1).sum(), (ranks < 5).sum(), math.fsum(losses) / 50, probabilities,
            (np.sum(ranks[counted] < 1), np.sum(ranks[counted] < 5), losses[counted].mean()),
        )  # fmt: skip

    return {"raw": evaluate(0.0), "averaged": evaluate(0.05)}


def numpy_logits(weights, images):
    kernel = weights["conv/kernel"]
    side_px = images.shape[1] - 2
    features = sum(
        images[:, row : row + side_px, column : column + side_px] @ kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    features = np.maximum(features + weights["conv/bias"], 0)
    scale = weights["norm/gamma"] / np.sqrt(weights["norm/moving_variance"] + 1e-3)
    features = (features - weights["norm/moving_mean"]) * scale + weights["norm/beta"]
    return features.mean(axis=(1, 2)) @ weights["logits/kernel"] + weights["logits/bias"]


@pytest.mark.parametrize("name", ["raw", "averaged"])
@pytest.mark.parametrize("num_devices", [1, 4])
def test_result_is_numpys_under_the_given_weights(results, truth, name, num_devices):
    top1, top5, loss_nats, *_ = truth[name]
    result = results[f"{name} 16 on {num_devices}"]
    assert result["num_examples"] == 50
    assert (result["top1_count"], result["top5_count"]) == (top1, top5)
    assert result["loss_nats"] == pytest.approx(loss_nats, rel=1e-6)


@pytest.mark.parametrize("num_devices", [1, 4])
def test_a_second_count_in_the_same_pass_is_numpys(results, truth, num_devices):
    result = dict(results[f"counted 7 on {num_devices}"])
    found = dict(result.pop("without_blacklist"))
    assert result == results[f"raw 7 on {num_devices}"]
    top1, top5, loss_nats = truth["raw"][4]
    assert found.pop("loss_nats") == pytest.approx(loss_nats, rel=1e-6)
    assert found == {"num_examples": 37, "top1_count": top1, "top5_count": top5}


def test_raw_and_averaged_weights_give_different_results(truth):
    assert abs(truth["raw"][2] - truth["averaged"][2]) > 1e-2


def test_number_of_devices_changes_no_bit(results):
    for name in ("raw 16", "averaged 16", "raw 4", "counted 7"):
        assert results[f"{name} on 1"] == results[f"{name} on 4"]


def test_order_of_batches_changes_no_bit(results):
    for num_devices in (1, 4):
        straight = results[f"raw 4 on {num_devices}"]
        assert results[f"raw 4 backwards on {num_devices}"] == straight


def test_another_batch_size_changes_no_count_and_the_loss_below_a_millionth(results):
    for num_devices in (1, 4):
        sixteen, seven = results[f"raw 16 on {num_devices}"], results[f"raw 7 on {num_devices}"]
        assert seven["loss_nats"] == pytest.approx(sixteen["loss_nats"], rel=1e-6)
        assert {**seven, "loss_nats": None} == {**sixteen, "loss_nats": None}


def test_arrays_and_variables_give_the_same_result(results):
    for num_devices in (1, 4):
        arrays = results[f"averaged as arrays 16 on {num_devices}"]
        assert arrays == results[f"averaged 16 on {num_devices}"]


def test_one_trace_serves_all_weights(results):
    assert (results["traces on 1"], results["traces on 4"]) == (1, 1)


def test_evaluation_leaves_the_model_alone(results):
    assert results["untouched on 1"] and results["untouched on 4"]


def test_a_missing_image_is_refused(results):
    for num_devices in (1, 4):
        assert "50 valid images" in results[f"refused on {num_devices}"]
        assert "for 51" in results[f"refused on {num_devices}"]


def test_a_stop_breaks_an_evaluation_off_a_batch_later(results):
    for num_devices in (1, 4):
        assert results[f"stopped on {num_devices}"] == [3, None]


def test_probabilities_are_those_of_the_given_weights(results, truth):
    for num_devices in (1, 4):
        np.testing.assert_allclose(
            results[f"probabilities on {num_devices}"], truth["averaged"][3][:3], atol=1e-6
        )


@pytest.mark.slow
def test_two_workers_agree_with_two_devices_of_one(results):
    ports = free_ports(2)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    workers = [
        start({"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})})
        for task in ({"type": "worker", "index": index} for index in range(2))
    ]
    try:
        first, second = [results_of(worker) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert first == second
    for name in ("raw 16", "averaged 16", "counted 7"):
        assert first[name] == results[f"{name} on 1"]
    assert first["stopped"] == [3, None]  # the second worker alone asked


def test_steps_hold_every_example():
    assert evaluation_steps(50, num_physical=1, replica_batch=16) == 4
    assert evaluation_steps(50, num_physical=4, replica_batch=16) == 1
    assert evaluation_steps(48, num_physical=3, replica_batch=16) == 1
    assert evaluation_steps(50_000, num_physical=1, replica_batch=32) == 1563


@pytest.mark.parametrize("field", [{"every_epochs": 0.0}, {"replica_batch": 0}])
def test_impossible_specs_are_refused(field):
    with pytest.raises(ConfigError, match=next(iter(field))):
        EvaluationSpec(**field)
