"""Reads what a report shows: run directories, evaluation files, images of classes."""

import json
import pathlib
import re

from inception_tf import class_images, preparation
from inception_tf.claims import figure, results
from inception_tf.errors import ConfigError, UserError, first_line
from inception_tf.models import catalog
from inception_tf.reporting import evaluation_files
from inception_tf.reporting.metrics_file import UNIX_SECS, read_rows
from inception_tf.reporting.page_contents import (
    Measured,
    MeasuredNetwork,
    Report,
    Restart,
    Run,
    Share,
    TriedClaim,
)
from inception_tf.run_directory import RunDirectory


def gather(
    run_dirs, evaluation_paths, *, resolve, differences_from_paper, data_dir=None, claims_dir=None
) -> Report:
    """Everything that the sources hold.

    Args:
      run_dirs: of runs, each once.
      evaluation_paths: evaluation files that lie in no run, or directories of them.
      resolve: from a run directory to its resolved config.
      differences_from_paper: from that to its (parameter, paper, this run).
      data_dir: records that example images are taken from; None takes those that were evaluated.
      claims_dir: directory of what `reproduce` wrote; None shows no claims.

    Raises:
      UserError: a source is none, or the records that were named cannot be read.
    """
    labels = _labels(run_dirs)
    notes, runs = [], []
    for run_dir, label in zip(run_dirs, labels, strict=True):
        runs.append(_read_run(run_dir, label, resolve, differences_from_paper, notes))
    recipes = {pathlib.Path(run.path).resolve(): run.recipe for run in runs}

    def recipe_of(path):
        place = pathlib.Path(path).resolve()
        if place not in recipes and RunDirectory(place).holds_run():
            recipes[place] = complete_recipe(resolve(path))
        return recipes.get(place)

    measured, worst = [], []
    for run in runs:
        files = _files_in(pathlib.Path(run.path) / "evaluations", notes)
        for path, content in files:
            measured += _measured(path, content, label=run.label, recipe_of=recipe_of, run=run)
        worst.append(class_images.worst_of_run(run, files, data_dir=data_dir))
    for place in evaluation_paths:
        files = _named_files(pathlib.Path(place), notes)
        for path, content in files:
            measured += _measured(path, content, label="", recipe_of=recipe_of, run=None)
            worst.append(class_images.worst_of_file(path, content, data_dir=data_dir))
    return Report(
        runs=tuple(runs),
        measured=tuple(measured),
        worst=tuple(worst),
        notes=tuple(notes),
        claims=() if claims_dir is None else _claims_in(pathlib.Path(claims_dir)),
    )


def _claims_in(directory):
    """What came out of the claims whose outcomes lie in a directory, by their numbers."""
    outcomes = [results.read(path) for path in directory.glob("claim_*.json")]
    if not outcomes:
        raise ConfigError(
            "--claims names a directory of what tools/reproduce.py wrote.", received=str(directory)
        )
    return tuple(map(_tried_claim, sorted(outcomes, key=lambda content: content["number"])))


def _tried_claim(content):
    header, rows = results.table_of(content)
    machine = f"{content['command']}; {content['date']}, {content['machine']}"
    told = (f"{content['source']}: {content['statement']}", f"criterion: {content['criterion']}")
    return TriedClaim(
        number=content["number"],
        title=content["title"],
        verdict=results.VERDICTS[content["holds"]],
        lines=(*told, *results.check_lines(content), *results.imagenet_lines(content), machine),
        header=tuple(header),
        rows=tuple(map(tuple, rows)),
        png=figure.png_of(content),
    )


def _labels(run_dirs):
    """The last parts of each path, as many as tell it from the others.

    Raises:
      ConfigError: a run is named twice, or is none.
    """
    for run_dir in run_dirs:
        if not RunDirectory(run_dir).holds_run():
            raise ConfigError(
                "A report is of run directories.",
                received=f"{run_dir}, which holds no config.gin of a run",
                remedy="Give the --run_dir of a training run; evaluation files that lie in no run "
                "are given with --evaluations.",
            )
    parts = [pathlib.Path(run_dir).resolve().parts for run_dir in run_dirs]
    if len(set(parts)) < len(parts):
        raise ConfigError("Every run is given once.", received=", ".join(map(str, run_dirs)))
    labels = []
    for own in parts:
        number = 1
        while sum(other[-number:] == own[-number:] for other in parts) > 1:
            number += 1
        labels.append("/".join(own[-number:]))
    return labels


def _read_run(run_dir, label, resolve, differences_from_paper, notes):
    directory = RunDirectory(run_dir)
    resolved = resolve(run_dir)
    facts = directory.read_facts()
    training, model = resolved.sections["training"], resolved.sections["model"]
    rows = read_rows(run_dir)
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("train", "eval")}
    try:
        starts = directory.read_starts()
    except UserError as error:
        starts = []
        notes.append(f"{label}: restarts are not shown. {first_line(error)}")
    if rows and not starts:
        notes.append(f"{label}: the run keeps no record of its starts, so no restart is marked.")
    if by_kind["train"] and any(UNIX_SECS not in row for row in by_kind["train"]):
        notes.append(f"{label}: rows without wall time, so nothing is drawn over hours.")
    begins = bool(starts) and starts[0].step == 0
    total_steps = steps_per_epoch = None
    if facts is not None:
        total_steps = preparation.total_steps_of(training, num_examples=facts.num_examples)
        steps_per_epoch = facts.num_examples / (training.num_replicas * training.replica_batch)
    return Run(
        label=label,
        path=str(run_dir),
        network=model.name,
        variant=model.variant,
        num_classes=None if facts is None else facts.num_classes,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        train_rows=tuple(_by_step(by_kind["train"])),
        eval_rows=tuple(
            _by_step([*read_rows(directory.path / "evaluations"), *by_kind["eval"]])
        ),
        begun_secs=starts[0].unix_secs if begins else None,
        restarts=tuple(
            Restart(step=start.step, unix_secs=start.unix_secs) for start in starts[int(begins) :]
        ),
        recipe=complete_recipe(resolved),
        values=resolved.plain_values(),
        differences=tuple(differences_from_paper(resolved)),
        config_text=directory.config_file.read_text(encoding="utf-8"),
    )


def _by_step(rows):
    """One row for each step, in order; of the same value of a step the last one given holds."""
    merged = {}
    for row in rows:
        merged[row["step"]] = {**merged.get(row["step"], {}), **row}
    return [row for _, row in sorted(merged.items())]


def complete_recipe(resolved) -> dict[str, object]:
    """The recipe of a resolved config; options that it leaves out are those of the builder."""
    network = resolved.sections["model"].name

    def whole(parameter, value):
        section, _, name = parameter.partition(".")
        is_left_out = section == "model" and value is None
        return catalog.builder_default(network, name) if is_left_out else value

    return {name: whole(name, value) for name, value in resolved.recipe().items()}


# -- evaluation files --------------------------------------------------------------------------


def _named_files(place, notes):
    """[(path, content)] of a file or directory that the user named.

    Raises:
      ConfigError: no evaluation is there.
    """
    if place.is_file():
        return [(place, _read_file(place))]
    found = _files_in(place, notes)
    if not found:
        raise ConfigError(
            "--evaluations names a file that `inception_tf.evaluate --out` wrote, or a directory "
            "of them.",
            received=str(place),
        )
    return found


def _files_in(directory, notes):
    """[(path, content)] of the evaluations in a directory; what is none is told."""
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append((path, _read_file(path)))
        except ConfigError as error:
            notes.append(f"passed over: {first_line(error)}")
    return found


def _read_file(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        is_ours = content["format"] == evaluation_files.FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    is_ours = is_ours and content.get("version") == evaluation_files.VERSION
    if not is_ours or not _is_whole(content):
        raise ConfigError(
            f"An evaluation file is JSON of {evaluation_files.FORMAT}, version "
            f"{evaluation_files.VERSION}.",
            received=str(path),
        )
    return content


def _is_whole(content):
    """Whether every field that a report reads is there."""
    try:
        _measured("", content, label="", recipe_of=lambda _: None, run=None)
        data = content["data"]
        fields = [data["data_dir"], data["split"]]
        for subset in (subset for model in content["models"] for subset in model["subsets"]):
            for one in subset.get("classes") or ():
                fields += [one["index"], one["name"], one["num_examples"]]
                fields += [one["top1_count"], one["top5_count"]]
            for one in (subset.get("confusions") or ()) if subset.get("classes") else ():
                fields += [one["label"], one["predicted_name"], one["count"]]
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
    return True


def _measured(path, content, *, label, recipe_of, run):
    """A Measured for each network, or several together, and subset of a file."""
    found = []
    for model in content["models"]:
        networks = tuple(_network(one, recipe_of, run) for one in model["networks"])
        steps = [one["step"] for one in model["networks"]]
        for subset in model["subsets"]:
            found.append(
                Measured(
                    label=label,
                    title=model["title"],
                    step=steps[0] if len(steps) == 1 else None,
                    networks=networks,
                    crops=model["crops"],
                    num_crops=model["num_crops"],
                    average=model["average"],
                    subset=subset["subset"],
                    labels=subset["labels"],
                    num_examples=subset["num_examples"],
                    num_classes=content["data"]["num_classes"],
                    top1=_share(subset["top1"]),
                    top5=_share(subset["top5"]) if "top5" in subset else None,
                    path=str(path),
                )
            )
    return found


def _share(found):
    low, high = found["error_interval"]
    return Share(error=found["error"], low=low, high=high)


def _network(found, recipe_of, run):
    """A network of a file; older files say which one it is in a sentence alone."""
    details, recipe = found["details"], None
    if found["weights"]:
        recipe = run.recipe if run is not None else recipe_of(found["source"])
    said = re.search(r": (\w+), (\w+)$", found["what"])
    name, variant = said.groups() if said else (None, None)
    name, variant = details.get("network") or name, details.get("variant") or variant
    size = details.get("input")
    if recipe is not None:
        name, variant = recipe["model.name"], recipe["model.variant"]
        size = size or {
            f"{side}_px": recipe[f"model.input_{side}_px"] for side in ("height", "width")
        }
    return MeasuredNetwork(
        source=found["source"],
        name=name,
        variant=variant,
        input_px=(size["height_px"], size["width_px"]) if size else None,
        weights=found["weights"],
        recipe=recipe,
    )
