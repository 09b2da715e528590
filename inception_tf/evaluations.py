"""Evaluates networks, alone and together, on every image once, and writes what came out."""

import collections
import dataclasses
import gc
import hashlib
import pathlib

from inception_tf import inputs as run_inputs
from inception_tf import initial_weights, lost_workers, predictions
from inception_tf.errors import ConfigError
from inception_tf.evaluation import outcomes, subset_scores, subsets
from inception_tf.evaluation.predictions import PredictionStore
from inception_tf.reporting import evaluation_files, evaluation_tables
from inception_tf.run_directory import RunDirectory
from inception_tf.training import watchdog


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is evaluated, and how.

    Attributes:
      sources: run directories, exports, files of weights, or published ones.
      weights: 'averaged', 'raw' or both, of each run directory.
      step: of the checkpoint of each run directory; None takes the newest good one.
      crops: protocols, as of `evaluation.crops.protocol`.
      average: over crops and members: 'probabilities' or 'logits'.
      is_ensemble: all sources together too.
      subsets: as of `evaluation.subsets.open_subsets`.
      lists: its files, by the names of its arguments.
      out_dir: for the results as JSON and CSV; None writes none.
      predictions_dir: where predictions are kept; None: with each run, or in the user's cache.
      of_weights: network, variant and input_px, for files of weights.
    """

    sources: tuple[str, ...]
    weights: tuple[str, ...] = ("averaged",)
    step: int | None = None
    crops: tuple[str, ...] = ("1",)
    average: str = "probabilities"
    is_ensemble: bool = False
    subsets: tuple[str, ...] = (subsets.ALL,)
    lists: dict = dataclasses.field(default_factory=dict)
    out_dir: str | None = None
    predictions_dir: str | None = None
    of_weights: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.is_ensemble and len(self.sources) * len(self.weights) < 2:
            raise ConfigError("An ensemble needs at least two networks.",
                              received=", ".join(self.sources))  # fmt: skip
        for name in ("sources", "crops"):
            twice = [x for x, n in collections.Counter(getattr(self, name)).items() if n > 1]
            if twice:
                raise ConfigError(f"{name} must differ.", received=f"{twice[0]} twice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one member says in one protocol: its place in the table, and where it is kept."""

    member: predictions.Member
    crops: str
    split: str
    store: PredictionStore

    @property
    def title(self):
        return f"{self.member.source} {self.member.weights}".strip()

    @property
    def network(self):
        """For the report: which network it is, and how it saw the images."""
        facts = self.store.facts
        return evaluation_tables.Network(
            source=self.member.source,
            what=self.member.what,
            weights=self.member.weights,
            step=self.member.step,
            crops=facts["protocol"]["name"],
            num_crops=facts["num_crops"],
            details=facts,
        )


def evaluate(experiment, request: Request, *, resolve_run) -> str:
    """Evaluates the sources of a request on every image of the evaluation split, once.

    Args:
      experiment: an Experiment: the data, the evaluation and the cluster.
      resolve_run: from a run directory to its Experiment.

    Returns:
      Text for the chief to print; '' on the other workers.

    Raises:
      UserError: a source, the records or a subset cannot be used.
    """
    # What is wrong here should not wait for the network.
    wanted = subsets.open_subsets(request.subsets, **request.lists)
    home = RunDirectory(_home_of(request))
    with lost_workers.join(experiment, home, verb="evaluate") as (cluster, watch):
        data = experiment.data
        inputs = run_inputs.open_inputs(
            data, experiment.model, run_dir=home.path, splits=[data.eval_split]
        )
        answers = []
        for source, weights in _networks_of(request):
            watch.enter(watchdog.PREPARING)
            member = _open(source, weights, request, cluster, resolve_run, inputs)
            moved = watch.enter_batches(watchdog.EVALUATING, step=member.step)
            for crops in request.crops:
                store = predictions.predict(
                    member,
                    crop_name=crops,
                    average=request.average,
                    inputs=inputs,
                    experiment=experiment,
                    cluster=cluster,
                    directory=request.predictions_dir,
                    is_stop_asked=moved,
                )
                kept = dataclasses.replace(member, inference=None, values=None)
                answers.append(
                    _Answer(member=kept, crops=crops, split=data.eval_split, store=store)
                )
            del member  # its variables: the next network has its own
            gc.collect()
    return _told(request, answers, wanted, inputs) if cluster.is_chief else ""


def _home_of(request):
    """Where workers meet and an index may be kept: with the first run, else in the cache."""
    runs = [source for source in request.sources if RunDirectory(source).holds_run()]
    return pathlib.Path(runs[0]) if runs else initial_weights.cache_dir() / "evaluations"


def _networks_of(request):
    """(source, 'averaged' or 'raw' or None) of each network."""
    for source in request.sources:
        if RunDirectory(source).holds_run():
            yield from ((source, weights) for weights in request.weights)
        else:
            yield source, None


def _open(source, weights, request, cluster, resolve_run, inputs):
    is_run = RunDirectory(source).holds_run()
    options = {} if is_run else request.of_weights
    member = predictions.open_member(
        source,
        cluster=cluster,
        resolve_run=resolve_run,
        weights=weights,
        step=request.step if is_run else None,
        **options,
    )
    predictions.check_classes(member, inputs)
    return member


def _told(request, answers, wanted, inputs):
    """Writes the results, and returns what the terminal shows."""
    evaluated, comparisons = [], []
    for name in request.crops:
        members = [answer for answer in answers if answer.crops == name]
        found = [_alone(answer, request, wanted, inputs) for answer in members]
        if request.is_ensemble:
            found.append(_together(members, request, wanted, inputs))
        evaluated += [one for one, _ in found]
        first, *others = [(f"{one.title}, {one.crops}", outcome) for one, outcome in found]
        about = _images_of(members[0].store)
        for other in others:
            comparisons += subset_scores.compare_on_subsets(first, other, wanted, **about)
    lines = [line for answer in answers for line in (answer.member.what, *answer.member.notes)]
    lines = [*dict.fromkeys(lines), ""]
    lines.append(evaluation_tables.evaluation_table(evaluated, comparisons))
    if request.out_dir is not None:
        data = {
            "data_dir": inputs.data_dir,
            "split": answers[0].split,
            "num_examples": answers[0].store.num_examples,
            "num_classes": inputs.num_classes,
        }
        files = evaluation_files.save_evaluation(
            request.out_dir, _stem(request, answers), evaluated, comparisons, data=data
        )
        lines += ["", f"all figures: {files[0]}, and as CSV beside it"]
    return "\n".join(lines)


def _alone(answer, request, wanted, inputs):
    """(Evaluated, Outcomes) of one member."""
    kept = answer.store.read()
    found = outcomes.outcomes_of(
        kept.probabilities, kept.labels, background=answer.member.background_class
    )
    return _scored(answer.title, [answer], found, request, wanted, inputs)


def _together(members, request, wanted, inputs):
    """(Evaluated, Outcomes) of all members as one."""
    kept = [answer.store.read() for answer in members]
    backgrounds = [answer.member.background_class for answer in members]
    joint = outcomes.ensemble(
        [one.probabilities for one in kept], mean=request.average, backgrounds=backgrounds
    )
    has_background = any(backgrounds)
    labels = kept[0].labels + int(has_background and not backgrounds[0])
    found = outcomes.outcomes_of(joint, labels, background=has_background)
    return _scored(f"ensemble of {len(members)}", members, found, request, wanted, inputs)


def _scored(title, members, found, request, wanted, inputs):
    figures, contrasts = subset_scores.score_subsets(
        found, wanted, class_names=inputs.class_names, **_images_of(members[0].store)
    )
    evaluated = evaluation_tables.Evaluated(
        title=title,
        networks=tuple(answer.network for answer in members),
        average=request.average,
        subsets=figures,
        contrasts=contrasts,
    )
    return evaluated, found


def _images_of(store):
    """File names and record ids of the images, for the subsets."""
    return {
        "file_names": store.read().file_names.tolist(),
        "record_ids": list(range(store.num_examples)),
    }


def _stem(request, answers):
    """Name of the files: of a single run its step, of others what tells them apart."""
    crops = "+".join(request.crops)
    if len(request.sources) == 1 and answers[0].member.step is not None:
        return f"step-{answers[0].member.step:09}_crops-{crops}"
    told = repr([(answer.member.digest, answer.crops) for answer in answers]).encode()
    return f"{len(request.sources)}-networks_crops-{crops}_{hashlib.sha256(told).hexdigest()[:8]}"
