"""The manifests for Kubernetes: against the published schemas, and by running their command."""

import copy
import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import jsonschema
import pytest
import yaml

from inception_tf import cluster, errors
from inception_tf.launch_restarts import NEVER_AGAIN

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / "launch" / "kubernetes"
GOLDEN = CHECKOUT / "tests" / "golden" / "kubernetes"
JOBSET, POLICY = yaml.safe_load_all((FOLDER / "train.jobset.yaml").read_text(encoding="utf-8"))
(VOLUME,) = yaml.safe_load_all((FOLDER / "volume.yaml").read_text(encoding="utf-8"))
RESOURCES = {"JobSet": JOBSET, "NetworkPolicy": POLICY, "PersistentVolumeClaim": VOLUME}
DEFINITIONS = {
    ("networking.k8s.io/v1", "NetworkPolicy"): "io.k8s.api.networking.v1.NetworkPolicy",
    ("v1", "PersistentVolumeClaim"): "io.k8s.api.core.v1.PersistentVolumeClaim",
}
META = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
# Below these the keys are the user's own, or name a resource.
FREE = {"matchLabels", "labels", "annotations", "requests", "limits"}


def strict(schema):
    """A schema that refuses the fields it does not know, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        result["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        result.setdefault("additionalProperties", False)
    return result


def schema_of(resource):
    definitions = json.loads((GOLDEN / "core.json").read_text(encoding="utf-8"))["$defs"]
    kind = resource.get("apiVersion"), resource.get("kind")
    if kind == ("jobset.x-k8s.io/v1alpha2", "JobSet"):
        schema = strict(json.loads((GOLDEN / "jobset.json").read_text(encoding="utf-8")))
        # A custom resource leaves it open; the server holds it against its own type.
        schema["properties"]["metadata"] = META
    else:
        schema = {"$ref": f"#/$defs/{DEFINITIONS[kind]}"}
    return {**schema, "$defs": definitions}


VALIDATORS = {
    kind: jsonschema.Draft202012Validator(schema_of(one)) for kind, one in RESOURCES.items()
}


def places(node, path=()):
    """The path of every mapping, with its keys, that a schema names the keys of."""
    if isinstance(node, dict):
        if not path or path[-1] not in FREE:
            yield from ((path, key) for key in node)
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from places(value, (*path, index))


def at(node, path):
    for step in path:
        node = node[step]
    return node


# -- the published schemas -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RESOURCES)
def test_the_resource_is_valid_by_its_published_schema(kind):
    errors_found = VALIDATORS[kind].iter_errors(RESOURCES[kind])
    assert [f"{one.json_path}: {one.message}" for one in errors_found] == []


@pytest.mark.parametrize(
    ("kind", "path", "key"),
    [
        pytest.param(kind, path, key, id=".".join(map(str, (kind, *path, key))))
        for kind, resource in RESOURCES.items()
        for path, key in places(resource)
    ],
)
def test_a_mistyped_field_is_found_wherever_it_stands(kind, path, key):
    mistyped = copy.deepcopy(RESOURCES[kind])
    fields = at(mistyped, path)
    fields[key + key[-1]] = fields.pop(key)
    assert not VALIDATORS[kind].is_valid(mistyped)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.failurePolicy.maxRestarts", "twenty"),
        ("spec.failurePolicy.restartStrategy", "BlockRecreate"),
        ("spec.failurePolicy.rules.0.action", "FailJob"),
        ("spec.replicatedJobs.0.template.spec.completions", "2"),
        ("spec.replicatedJobs.0.template.spec.podFailurePolicy.rules.0.onExitCodes.values", 2),
        ("spec.replicatedJobs.0.template.spec.template.spec.containers.0.command", "sh"),
        ("spec.replicatedJobs.0.template.spec.template.spec.containers.0.env.0.value", 2),
        ("metadata.name", 7),
    ],
)
def test_a_value_of_the_wrong_type_or_word_is_found(path, value):
    wrong = copy.deepcopy(JOBSET)
    *path, key = [int(step) if step.isdigit() else step for step in path.split(".")]
    at(wrong, path)[key] = value
    assert not VALIDATORS["JobSet"].is_valid(wrong)


# -- what the schemas do not say -------------------------------------------------------------------


def job_of(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]


def pod_of(jobset):
    return job_of(jobset)["template"]["spec"]


def container_of(jobset):
    (container,) = pod_of(jobset)["containers"]
    return container


JOB, POD, CONTAINER = job_of(JOBSET), pod_of(JOBSET), container_of(JOBSET)


def test_all_workers_start_again_together_and_never_alone():
    assert JOB["completionMode"] == "Indexed" and JOB["parallelism"] == JOB["completions"]
    assert JOB["backoffLimit"] == 0 and POD["restartPolicy"] == "Never"
    assert JOBSET["spec"]["failurePolicy"]["maxRestarts"] > 0


def test_what_a_start_would_repeat_ends_the_job_and_all_else_starts_it_again():
    actions = {}
    for rule in JOB["podFailurePolicy"]["rules"]:
        codes = rule["onExitCodes"]
        assert codes["containerName"] == CONTAINER["name"] and codes["operator"] == "In"
        actions |= dict.fromkeys(codes["values"], rule["action"])
    # `Count` with backoffLimit 0 fails the Job for another reason than PodFailurePolicy, for which
    # the JobSet has no rule; its default is RestartJobSet.
    assert actions == {
        **dict.fromkeys(NEVER_AGAIN, "FailJob"),
        errors.EXIT_STUCK: "Count",
        errors.EXIT_PREEMPTED: "Count",
    }
    (rule,) = JOBSET["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    # The server's own pattern for names of rules.
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])


def test_the_shared_volume_can_be_written_from_every_node():
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in POD["volumes"]
        if "persistentVolumeClaim" in volume
    }
    (name,) = claims
    assert claims[name] == VOLUME["metadata"]["name"]
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]
    (mount,) = [one["mountPath"] for one in CONTAINER["volumeMounts"] if one["name"] == name]
    paths = [re.match("--(?:run|data)_dir=(.*)", word) for word in CONTAINER["args"]]
    paths = [found[1] for found in paths if found]
    assert len(paths) == 2 and all(path.startswith(mount + "/") for path in paths)


def test_a_save_fits_into_the_time_between_the_signal_and_the_kill():
    # Kubernetes' own 30 s do not hold the 1 GB of the largest network on a slow shared disk.
    assert POD["terminationGracePeriodSeconds"] >= 300


def test_threads_are_as_many_as_the_cores_that_are_requested():
    cores = CONTAINER["resources"]["requests"]["cpu"]
    assert f"--gin_param=cluster.intra_op_threads={cores}" in CONTAINER["args"]


def test_only_the_jobs_own_pods_reach_the_port_and_nothing_reaches_another():
    label = {"matchLabels": {"jobset.sigs.k8s.io/jobset-name": JOBSET["metadata"]["name"]}}
    (port,) = [one["containerPort"] for one in CONTAINER["ports"]]
    rule = {"ports": [{"protocol": "TCP", "port": port}]}
    spec = POLICY["spec"]
    assert spec["podSelector"] == label
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert spec["ingress"] == [{"from": [{"podSelector": label}], **rule}]
    to_workers, to_names = spec["egress"]
    assert to_workers == {"to": [{"podSelector": label}], **rule}
    assert {(one["protocol"], one["port"]) for one in to_names["ports"]} == {
        ("UDP", 53),
        ("TCP", 53),
    }


# -- the command of the container ------------------------------------------------------------------


def expanded(text, environment):
    """What Kubernetes makes of `$(NAME)` and `$$` before a container starts."""

    def value(match):
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, text)


def run_container(jobset, tmp_path, *, index):
    """TF_CONFIG and the arguments with which the container would start Python."""
    container, stub = container_of(jobset), tmp_path / "python"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" "$@"\n', encoding="utf-8")
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    own = {one["name"]: one["value"] for one in container["env"]}
    # The Job controller's, as an environment variable that $(NAME) does not know by then.
    given = {**own, "JOB_COMPLETION_INDEX": str(index), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    words = [expanded(word, own) for word in container["command"] + container["args"]]
    done = subprocess.run(words, env=given, capture_output=True, text=True, check=True)
    tf_config, *arguments = done.stdout.splitlines()
    return tf_config, arguments


def with_workers(number, *, name="inception-train"):
    """The manifest as its header says to change it."""
    text = json.dumps(JOBSET).replace("inception-train", name)
    jobset = json.loads(text)
    job_of(jobset).update(parallelism=number, completions=number)
    container_of(jobset)["env"][0]["value"] = str(number)
    return jobset


def host_of(jobset, index):
    """The name that JobSet gives to a pod: <jobset>-<job>-<job index>-<pod index>.<subdomain>."""
    name, network = jobset["metadata"]["name"], jobset["spec"]["network"]
    assert network["enableDNSHostnames"] is True
    (job,) = jobset["spec"]["replicatedJobs"]
    return f"{name}-{job['name']}-0-{index}.{network['subdomain']}"


@pytest.mark.parametrize(
    "jobset",
    [JOBSET, with_workers(1), with_workers(12), with_workers(3, name="other")],
    ids=["as-is", "1", "12", "renamed"],
)
def test_every_worker_gets_its_own_tf_config(jobset, tmp_path, monkeypatch):
    number = job_of(jobset)["completions"]
    port = container_of(jobset)["ports"][0]["containerPort"]
    addresses = [f"{host_of(jobset, index)}:{port}" for index in range(number)]
    assert all(len(address.partition(".")[0]) <= 63 for address in addresses)  # a DNS label
    for index in range(number):
        tf_config, arguments = run_container(jobset, tmp_path, index=index)
        assert json.loads(tf_config) == {
            "cluster": {"worker": addresses},
            "task": {"type": "worker", "index": index},
        }
        assert arguments == ["-m", "inception_tf.train", *container_of(jobset)["args"]]
        monkeypatch.setenv("TF_CONFIG", tf_config)
        assert cluster.read_workers() == (addresses, index)


def test_fewer_workers_than_pods_is_an_error_of_the_surplus_pod(tmp_path, monkeypatch):
    jobset = with_workers(2)
    job_of(jobset).update(parallelism=3, completions=3)
    tf_config, _ = run_container(jobset, tmp_path, index=2)
    monkeypatch.setenv("TF_CONFIG", tf_config)
    with pytest.raises(errors.ConfigError, match="this task among them"):
        cluster.read_workers()


def test_without_an_index_or_a_number_nothing_starts(tmp_path):
    for name in ("WORKERS", "JOB_COMPLETION_INDEX"):
        words = container_of(JOBSET)["command"]
        given = {"WORKERS": "2", "JOB_COMPLETION_INDEX": "0", "PATH": "/usr/bin:/bin"}
        del given[name]
        done = subprocess.run(words, env=given, capture_output=True, text=True, check=False)
        assert done.returncode != 0 and name in done.stderr


@pytest.mark.slow
def test_the_door_takes_the_arguments_of_the_manifest():
    done = subprocess.run(
        [sys.executable, "-m", "inception_tf.train", *CONTAINER["args"], "--print_config"],
        cwd=CHECKOUT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cluster.intra_op_threads = 8" in done.stdout
