"""What the claims measure of finished runs beside the rows of their metrics."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys

import numpy as np

from inception_tf import durable
from inception_tf.errors import ConfigError
from inception_tf.training.checkpoint import CheckpointStore

_PROBED_IMAGES = 256
_IS_DEAD = 0.95  # share of zeros before the pool from which on a network says little any more
_CROPS = ("1", "10", "12", "144")


def probe(spec, runs, *, data_dir, only_known=False) -> dict:
    """(arm's name, seed) -> {'measures': ..., 'curves': ...} of finished runs.

    Args:
      spec: ClaimSpec with a probe.
      runs: SingleRuns that have ended.
      data_dir: of the records.
      only_known: leave out what would have to be computed by evaluations of minutes.
    """
    if spec.probe == "zeros":
        return _zeros(runs, data_dir)
    if spec.probe == "distance":
        return _distances(runs, spec.references)
    return _crops(runs, only_known)


# -- zeros before the average pool -------------------------------------------------------------


def _zeros(runs, data_dir):
    """Share of zeros before the average pool at every checkpoint, of the weights themselves."""
    found = {}
    for run in runs:
        points = _cached(run, "claim_zeros.json", lambda run=run: _zeros_of(run, data_dir))
        is_lost = run.outcome["exit_status"] != 0
        told = {"died": float(is_lost or points[-1][1] >= _IS_DEAD)}
        if points:  # a run may be lost before its first checkpoint
            told["zeros"] = points[-1][1]
            told["largest_zeros"] = max(share for _, share in points)
        found[run.arm.name, run.seed] = {"curves": {"zeros": points}, "measures": told}
    return found


def _zeros_of(run, data_dir):
    """[(epoch, share of zeros)] of a run's checkpoints, on images spread over the split."""
    import tensorflow as tf

    from inception_tf import preparation
    from inception_tf.evaluation.features import feature_model
    from inception_tf.run_directory import RunDirectory

    sections = run.resolved.sections
    training = sections["training"]
    facts = RunDirectory(run.run_dir).read_facts()
    model = preparation.build_model(sections["model"], training, num_classes=facts.num_classes)
    grid = feature_model(model, pooling="none")
    images = _some_images(run, data_dir)
    steps_per_epoch = facts.num_examples / (training.num_replicas * training.replica_batch)

    @tf.function
    def share_of_zeros():
        return tf.reduce_mean(tf.cast(grid(images, training=False) == 0, tf.float32))

    points, store = [], CheckpointStore.of_run(run.run_dir)
    for info in store.checkpoints():
        saved = store.read(info)
        for variable in model.weights:
            if (value := saved.get(f"model/{variable.path}")) is not None:
                variable.assign(value)
        points.append((info.step / steps_per_epoch, float(share_of_zeros())))
    return points


def _some_images(run, data_dir):
    """float32 [N, H, W, 3] as an evaluation sees them."""
    import tensorflow as tf

    from inception_tf import inputs as run_inputs
    from inception_tf.data.image import decode_evaluation

    sections = run.resolved.sections
    model, data = sections["model"], sections["data"]
    inputs = run_inputs.open_inputs(
        dataclasses.replace(data, data_dir=str(data_dir)),
        model,
        run_dir=run.run_dir,
        splits=[data.eval_split],
    )
    reader = inputs.readers[data.eval_split]
    count = min(_PROBED_IMAGES, reader.num_examples)
    files, _ = reader.read(np.arange(count, dtype=np.int64) * reader.num_examples // count)
    crop = sections["evaluation_crop"]
    return tf.stack(
        [
            decode_evaluation(
                file, crop=crop, height_px=model.input_height_px, width_px=model.input_width_px
            )
            for file in files
        ]
    )


# -- distance of the weights -------------------------------------------------------------------


def _distances(runs, references):
    """|w - w0| / |w0| over the checkpoints, w0 those of the reference with the same seed."""
    by_name, first = {(run.arm.name, run.seed): run for run in runs}, runs[0].arm.name
    found = {}
    for run in runs:
        reference = by_name.get((references.get(run.arm.name, first), run.seed))
        points = [] if reference is None else _distance_points(run, reference)
        if not points:
            continue
        apart = [distance for _, distance, _ in points]
        found[run.arm.name, run.seed] = {
            "curves": {"distance": [(step, distance) for step, distance, _ in points]},
            "measures": {
                "first_distance": apart[0],
                "final_distance": apart[-1],
                "largest_distance": max(apart),
                "differing_variables": max(count for _, _, count in points),
            },
        }
    return found


def _distance_points(run, reference):
    """[(step, distance of the weights, number of saved variables with other bits)]."""
    stores = [CheckpointStore.of_run(one.run_dir) for one in (run, reference)]
    by_step = [{info.step: info for info in store.checkpoints()} for store in stores]
    points = []
    for step in sorted(by_step[0].keys() & by_step[1].keys()):
        ours, theirs = (store.read(infos[step]) for store, infos in zip(stores, by_step))
        names = [name for name in theirs if name.startswith("model/")]
        squares = [_squares(ours[name], theirs[name]) for name in names]
        apart, size = (math.fsum(column) for column in zip(*squares, strict=True))
        count = sum(ours[name].tobytes() != theirs[name].tobytes() for name in theirs)
        points.append((step, math.sqrt(apart / size), count))
    return points


def _squares(ours, theirs):
    theirs = theirs.astype(np.float64)
    return np.sum(np.square(ours - theirs)), np.sum(np.square(theirs))


# -- crops and ensembles -----------------------------------------------------------------------


def _crops(runs, only_known):
    """Errors with 1, 10, 12 and 144 crops, and of each run of the first arm together with all
    runs of the second one."""
    arms = list(dict.fromkeys(run.arm.name for run in runs))
    if len(arms) < 2:
        return {}  # no run of the second arm has ended yet
    many = [run for run in runs if run.arm.name == arms[1]]
    found = {}
    for run in (one for one in runs if one.arm.name == arms[0]):
        members = [run, *many]
        # Of these members: with another number of seeds it is another ensemble.
        mark = hashlib.sha256("\n".join(one.run_dir.name for one in members).encode())
        name = f"claim_crops-{mark.hexdigest()[:8]}"
        is_lost = any(one.outcome["exit_status"] for one in members)  # whose weights are no more
        if is_lost or (only_known and not (run.run_dir / f"{name}.json").exists()):
            continue
        errors = _cached(
            run,
            f"{name}.json",
            lambda members=members, out=run.run_dir / name: _evaluate(members, out),
        )
        for number, member in enumerate(members):
            alone = errors[str(number)]
            found[member.arm.name, member.seed] = {
                "measures": _of_crops(alone), "curves": {"crops": _over_crops(alone)},
            }  # fmt: skip
        best = min(errors[str(number)]["1"] for number in range(len(members)))
        together = errors["ensemble"]
        found[run.arm.name, run.seed]["curves"]["ensemble_crops"] = _over_crops(together)
        found[run.arm.name, run.seed]["measures"] |= {
            "best_member_error": best,
            "ensemble_error": together["1"],
            "ensemble_error_at_144": together["144"],
            "ensemble_gain": best - together["1"],
        }
    return found


def _of_crops(errors):
    found = {f"error_at_{crops}": error for crops, error in errors.items()}
    return found | {f"gain_at_{crops}": errors["1"] - error for crops, error in errors.items()}


def _over_crops(errors):
    return [(int(crops), errors[crops]) for crops in _CROPS]


def _evaluate(members, out):
    """'0', '1', ... or 'ensemble' -> crops -> error, by `inception_tf.evaluate`."""
    command = [sys.executable, "-m", "inception_tf.evaluate"]
    command += [str(run.run_dir) for run in members]
    command += ["--ensemble", f"--crops={','.join(_CROPS)}", f"--out={out}"]
    status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if status:
        raise ConfigError(
            "The runs of a claim must be evaluated.",
            received=f"exit status {status}",
            remedy="The evaluation's own message stands above; the same command goes on.",
        )
    content = json.loads(next(out.glob("*.json")).read_text())
    found = {}
    for model in content["models"]:
        key = "ensemble" if len(model["networks"]) > 1 else str(
            [str(run.run_dir) for run in members].index(model["networks"][0]["source"])
        )
        crops = next(name for name in _CROPS if model["num_crops"] == int(name))
        found.setdefault(key, {})[crops] = model["subsets"][0]["top1"]["error"]
    return found


def _cached(run, file, compute):
    """A JSON value that is computed once for a run."""
    path = run.run_dir / file
    if path.exists():
        return json.loads(path.read_text())
    value = compute()
    durable.save_text(path, json.dumps(value) + "\n")
    return value
