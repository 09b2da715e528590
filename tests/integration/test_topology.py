"""The number of devices and processes changes not one bit of a run, and mistakes in that show."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from inception_tf.launch_plan import free_ports

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
DRIVER = HERE / "run_steps.py"
TIMEOUT_SECS = 400
SLOW_TIMEOUT_SECS = 1500

# 20 declared replicas of 2 images each, in every job.
MAIN = {"name": "main", "num_steps": 50, "num_units": 10}
RECORDS = {"name": "records", "num_steps": 6, "data": "records"}
# Every kernel travels alone: that of a convolution takes 1.7 kB or more in an exact sum.
PACKED = {**RECORDS, "name": "packed", "bytes_per_pack": 1000}
FLOAT32 = {"name": "float32", "num_steps": 2, "data": "records", "reduction": "float32"}
FAULTS = (
    "clip_before_reduction",
    "first_statistics",
    "l2_per_replica",
    "same_dropout_mask",
    "float32_reduction",
)
FAULTY = [{**RECORDS, "name": fault, "fault": fault} for fault in FAULTS]
INCEPTION = {"name": "inception", "num_steps": 50, "network": "inception"}
LOOPED = {**MAIN, "name": "looped", "steps_per_loop": 5}
TUNED = {
    "name": "tuned",
    "num_steps": 50,
    "num_units": 4,
    "data": "records",
    "frozen": True,
    "aux_head": True,
    "precision": "mixed_bfloat16",
}

# The step leaves these to evaluation and to the metrics file.
LEFT_TO_OTHERS = {"best_step", "best_top1", "last_row_step"}
STATISTICS = ("/moving_mean", "/moving_variance")


# -- running the driver ----------------------------------------------------------------------------


def start(out, *, devices, jobs, tf_config=None):
    """A process that runs the jobs on one topology and writes to `out`."""
    out.mkdir(parents=True)
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
        ),
    }
    environment.pop("TF_CONFIG", None)
    if tf_config is not None:
        environment["TF_CONFIG"] = json.dumps(tf_config)
    texts = [json.dumps(job) for job in jobs]
    # A file and not a pipe: several processes are waited for one after the other, and none may
    # stand still because its pipe is full.
    with open(out / "log", "w") as log:
        return subprocess.Popen(
            [sys.executable, str(DRIVER), f"--devices={devices}", f"--out={out}", *texts],
            cwd=CHECKOUT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(processes, *, timeout_secs=TIMEOUT_SECS):
    """Job name -> variables of each process, {out directory: process}; all end, whatever fails."""
    try:
        for out, process in processes.items():
            code = process.wait(timeout=timeout_secs)
            assert code == 0, (out / "log").read_text()[-4000:]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return [{path.stem: read(path) for path in out.glob("*.npz")} for out in processes]


def read(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def run(out, *, devices, jobs, timeout_secs=TIMEOUT_SECS):
    process = start(out, devices=devices, jobs=jobs)
    return finish({out: process}, timeout_secs=timeout_secs)[0]


def run_one_and_two(directory, *, jobs):
    outs = {directory / str(devices): devices for devices in (1, 2)}
    return finish({out: start(out, devices=devices, jobs=jobs) for out, devices in outs.items()})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("topology")


@pytest.fixture(scope="module")
def one_and_two(directory):
    """What one device and two devices of one process make of every fast job."""
    return run_one_and_two(directory, jobs=[MAIN, RECORDS])


@pytest.fixture(scope="module")
def one(one_and_two):
    return one_and_two[0]


@pytest.fixture(scope="module")
def two(one_and_two):
    return one_and_two[1]


@pytest.fixture(scope="module")
def faulty(directory):
    """The same of jobs whose bits are to differ."""
    return run_one_and_two(directory / "faulty", jobs=[FLOAT32, *FAULTY])


@pytest.fixture(scope="module")
def slow_one(directory):
    """What one device makes of the slow jobs."""
    jobs = [MAIN, TUNED, INCEPTION]
    return run(directory / "slow-1", devices=1, jobs=jobs, timeout_secs=SLOW_TIMEOUT_SECS)


@pytest.fixture(scope="module")
def slow_three(directory):
    jobs = [LOOPED, TUNED, INCEPTION]
    return run(directory / "slow-3", devices=3, jobs=jobs, timeout_secs=SLOW_TIMEOUT_SECS)


# -- comparing -------------------------------------------------------------------------------------


def differing(a, b):
    """Names of the variables of which some bit differs, after the last step."""
    assert a.keys() == b.keys()
    return {
        name.removeprefix("end/")
        for name in a
        if name.startswith("end/")
        and (a[name].dtype, a[name].tobytes()) != (b[name].dtype, b[name].tobytes())
    }


def assert_same_start(a, b):
    starts = [name for name in a if name.startswith("start/")]
    assert starts and all(a[name].tobytes() == b[name].tobytes() for name in starts)


def relative_difference(a, b, names):
    """|a - b| / |a|, each group of variables as one vector."""
    names = [f"end/{name}" for name in names]
    difference = sum(np.sum(np.square(a[name].astype(float) - b[name])) for name in names)
    size = sum(np.sum(np.square(a[name].astype(float))) for name in names)
    return np.sqrt(difference / size)


def movements(values):
    """Name -> |end - start| / max(|start|, |end|) of every variable that training changes."""
    moved = {}
    for name, end in values.items():
        kind, _, name = name.partition("/")
        if kind == "start" or name in LEFT_TO_OTHERS:
            continue
        begin, end = values[f"start/{name}"].astype(float), end.astype(float)
        size = max(np.linalg.norm(begin), np.linalg.norm(end))
        moved[name] = np.linalg.norm(end - begin) / size if size else 0.0
    return moved


def groups_of(values):
    """Weights, each kind of slot, statistics, averages: group -> names of its variables."""
    names = [name.removeprefix("end/") for name in values if name.startswith("end/")]
    model = [name for name in names if name.startswith("model/")]
    return {
        "weights": [name for name in model if not name.endswith(STATISTICS)],
        "statistics": [name for name in model if name.endswith(STATISTICS)],
        **{
            kind: [name for name in names if name.startswith(f"{kind}/")]
            for kind in ("rms", "momentum", "average")
        },
    }


# -- the same bits ---------------------------------------------------------------------------------


def test_one_and_two_devices_have_the_same_bits_after_50_steps(one, two):
    assert differing(one["main"], two["main"]) == set()
    assert one["main"]["end/step"] == 50


def test_every_kind_of_variable_is_compared(one):
    names = groups_of(one["main"])
    num_weights = 10 * 2 + 4 + 2  # kernels and betas, four gammas, the dense layer
    assert {kind: len(names[kind]) for kind in names} == {
        "weights": num_weights,
        "statistics": 20,
        "rms": num_weights,
        "momentum": num_weights,
        "average": num_weights + 20,
    }


def test_every_variable_moves_by_ten_thousand_times_its_rounding(one):
    # float32 rounds by 6e-8 of a value.
    moved = movements(one["main"])
    assert min(moved.values()) > 1e-3, sorted(moved.items(), key=lambda item: item[1])[:5]


def test_records_give_the_same_bits_on_one_and_two_devices(one, two):
    assert differing(one["records"], two["records"]) == set()


@pytest.mark.slow
def test_two_processes_have_the_bits_of_two_devices_however_their_sums_are_packed(two, directory):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = {}
    for index in range(2):
        out = directory / f"worker-{index}"
        task = {"type": "worker", "index": index}
        tf_config = {"cluster": {"worker": addresses}, "task": task}
        workers[out] = start(out, devices=1, jobs=[RECORDS, PACKED], tf_config=tf_config)
    first, second = finish(workers)
    for worker in (first, second):
        assert differing(worker["records"], two["records"]) == set()
        assert differing(worker["packed"], two["records"]) == set()
        assert_same_start(worker["records"], two["records"])


# -- mistakes show ---------------------------------------------------------------------------------


def of_each(one_and_two, job):
    return [jobs[job] for jobs in one_and_two]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_equality_fails_under_a_seeded_fault(faulty, fault):
    # `test_records_give_the_same_bits_on_one_and_two_devices` is the same job without the fault.
    assert_same_start(*of_each(faulty, fault))
    assert differing(*of_each(faulty, fault))


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["clip_before_reduction", "l2_per_replica", "same_dropout_mask"]
)
def test_a_fault_of_the_gradient_moves_the_weights_beyond_rounding(faulty, fault):
    weights = groups_of(of_each(faulty, fault)[0])["weights"]
    assert relative_difference(*of_each(faulty, fault), weights) > 1e-5


@pytest.mark.slow
def test_first_statistics_spoil_statistics_and_their_averages_alone(faulty):
    a, b = of_each(faulty, "first_statistics")
    statistics = set(groups_of(a)["statistics"])
    averages = {name for name in groups_of(a)["average"] if name.endswith(STATISTICS)}
    assert differing(a, b) == statistics | averages
    assert relative_difference(a, b, statistics) > 1e-5


@pytest.mark.slow
def test_float32_sums_agree_to_a_millionth_after_two_steps(faulty):
    a, b = of_each(faulty, "float32")
    for kind, names in groups_of(a).items():
        assert relative_difference(a, b, names) < 1e-6, kind


# -- slow ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3, 8, 20])
def test_many_devices_have_the_bits_of_one(slow_one, directory, devices):
    out = directory / f"many-{devices}"
    many = run(out, devices=devices, jobs=[MAIN], timeout_secs=SLOW_TIMEOUT_SECS)
    assert differing(slow_one["main"], many["main"]) == set()


@pytest.mark.slow
def test_loops_of_five_steps_on_the_device_have_the_bits_of_single_steps(slow_one, slow_three):
    assert differing(slow_one["main"], slow_three["looped"]) == set()


@pytest.mark.slow
def test_frozen_layers_aux_head_and_bfloat16_have_the_same_bits_on_three_devices(
    slow_one, slow_three
):
    a, b = slow_one["tuned"], slow_three["tuned"]
    assert differing(a, b) == set()
    moved = movements(a)
    assert {name for name, movement in moved.items() if movement == 0.0} == {
        f"model/{unit}/{variable}"
        for unit in ("unit_0", "unit_1")
        for variable in ("kernel", "beta", "moving_mean", "moving_variance")
    }
    assert "model/aux_logits/kernel" in moved


@pytest.mark.slow
def test_narrow_inception_resnet_has_the_same_bits_on_three_devices(slow_one, slow_three):
    assert differing(slow_one["inception"], slow_three["inception"]) == set()
    # Still a thousand times float32's rounding.
    moved = movements(slow_one["inception"])
    assert min(moved.values()) > 1e-4, sorted(moved.items(), key=lambda item: item[1])[:5]
