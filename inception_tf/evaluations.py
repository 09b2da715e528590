"""Evaluates networks, alone and together, on every image once, and writes what came out."""

import collections
import dataclasses
import gc
import hashlib
import pathlib
import sys

from inception_tf import inputs as run_inputs
from inception_tf import initial_weights, lost_workers, predictions
from inception_tf.errors import ConfigError
from inception_tf.evaluation import crops, outcomes, subset_scores, subsets
from inception_tf.evaluation.predictions import PredictionStore
from inception_tf.reporting import evaluation_files, evaluation_tables
from inception_tf.run_directory import RunDirectory
from inception_tf.serving.formats import is_export
from inception_tf.training import watchdog


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is evaluated, and how.

    Attributes:
      sources: run directories, exports, files of weights, or published ones.
      weights: 'averaged', 'raw' or both, of each run directory; None takes both of a single
        source, else the averaged ones.
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
    weights: tuple[str, ...] | None = None
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
        object.__setattr__(self, "crops", tuple(map(crops.full_name, self.crops)))
        self._check_choices()
        if self.weights is None:
            default = ("averaged",) if len(self.sources) > 1 else ("averaged", "raw")
            object.__setattr__(self, "weights", default)
        for name in ("sources", "weights", "crops"):
            twice = [x for x, n in collections.Counter(getattr(self, name)).items() if n > 1]
            if twice or not getattr(self, name):
                raise ConfigError(
                    f"{name} must be at least one, and different.",
                    received=f"{twice[0]} twice" if twice else "none",
                )
        if wrong := set(self.weights) - {"averaged", "raw"}:
            raise ConfigError("weights are averaged, raw or both.", received=", ".join(wrong))
        num_networks = len(list(_networks_of(self)))
        if self.is_ensemble and num_networks < 2:
            raise ConfigError("An ensemble needs at least two networks.",
                              received=", ".join(self.sources))  # fmt: skip
        if self.average != "probabilities" and not (self.is_ensemble or self.has_many_crops):
            raise ConfigError(
                "An average needs several crops or an ensemble.",
                received=f"average {self.average} of a single crop",
            )

    @property
    def has_many_crops(self) -> bool:
        """Whether a protocol has more than one crop."""
        return any(name != crops.DEFAULTS["1"] for name in self.crops)

    def _check_choices(self):
        """Raises ConfigError for a choice that no source has."""
        is_run = [RunDirectory(source).holds_run() for source in self.sources]
        are_weights = [
            not run and not is_export(source) for run, source in zip(is_run, self.sources)
        ]
        for kind, there_is, choices in (
            ("run directory", any(is_run), {"weights": self.weights, "step": self.step}),
            ("file of weights", any(are_weights), self.of_weights),
        ):
            given = [name for name, value in choices.items() if value is not None]
            if given and not there_is:
                raise ConfigError(
                    f"{given[0]} is a choice of a {kind}.", received=", ".join(self.sources)
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one member says in one protocol: its place in the table, and where it is kept."""

    member: predictions.Member  # without its values
    size: dict  # of its input
    crops: str
    store: PredictionStore

    @property
    def network(self):
        """For the report: which network it is, and how it saw the images."""
        facts = self.store.facts
        return evaluation_tables.Network(
            source=self.member.source,
            what=self.member.what,
            weights=self.member.weights,
            step=self.member.step,
            crops=self.crops,
            num_crops=facts["num_crops"],
            details={
                **facts,
                "network": self.member.network,
                "variant": self.member.variant,
                "input": self.size,
            },
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
    wanted = _open_subsets(request, experiment)
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
            for crop_name in request.crops:
                store = predictions.predict(
                    member,
                    crop_name=crop_name,
                    average=request.average,
                    inputs=inputs,
                    experiment=experiment,
                    cluster=cluster,
                    directory=request.predictions_dir,
                    on_batch=moved,
                    **({"tell": _tell} if cluster.is_chief else {}),
                )
                kept = dataclasses.replace(member, inference=None, values=None)
                answers.append(
                    _Answer(member=kept, size=member.size, crops=crop_name, store=store)
                )
            del member  # its variables: the next network has its own
            gc.collect()
    return _told(request, answers, wanted, inputs) if cluster.is_chief else ""


def _tell(line):
    print(line, file=sys.stderr, flush=True)


def _open_subsets(request, experiment):
    """The subsets; of a blacklist that the request does not name the configuration says it."""
    lists = dict(request.lists)
    if subsets.WITHOUT_BLACKLIST in request.subsets and not any(
        lists.get(name) for name in ("blacklist", "imagenet_meta_dir")
    ):
        lists["blacklist"] = experiment.evaluation.blacklist
    return subsets.open_subsets(request.subsets, **lists)


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
        one_each, compared = _scored_in(
            [answer for answer in answers if answer.crops == name], request, wanted, inputs
        )
        evaluated += one_each
        comparisons += compared
    lines = [line for answer in answers for line in (answer.member.what, *answer.member.notes)]
    lines = [*dict.fromkeys(lines), ""]
    lines.append(evaluation_tables.evaluation_table(evaluated, comparisons))
    if request.out_dir is not None:
        facts = answers[0].store.facts
        data = {
            "data_dir": inputs.data_dir,
            "split": facts["split"],
            "num_examples": facts["num_examples"],
            "num_classes": inputs.num_classes,
        }
        files = evaluation_files.save_evaluation(
            request.out_dir, _stem(request, answers), evaluated, comparisons, data=data
        )
        lines += ["", f"all figures: {files[0]}, and as CSV beside it"]
    return "\n".join(lines)


def _scored_in(answers, request, wanted, inputs):
    """([Evaluated], [Contrast]) of one protocol: every network, the ensemble, the first to each."""
    kept = [answer.store.read() for answer in answers]
    backgrounds = [answer.member.background_class for answer in answers]
    found = [
        (answer.member.title, [answer], outcomes.outcomes_of(
            one.probabilities, one.labels, background=answer.member.background_class
        ))
        for answer, one in zip(answers, kept)
    ]  # fmt: skip
    if request.is_ensemble:
        joint = outcomes.ensemble(
            [one.probabilities for one in kept], mean=request.average, backgrounds=backgrounds
        )
        labels = kept[0].labels + int(any(backgrounds) and not backgrounds[0])
        together = outcomes.outcomes_of(joint, labels, background=any(backgrounds))
        found.append((f"ensemble of {len(answers)}", answers, together))
    images = {
        "file_names": kept[0].file_names.tolist(),
        "record_ids": list(range(len(kept[0].labels))),
    }
    evaluated = []
    for title, members, outcome in found:
        figures, contrasts = subset_scores.score_subsets(
            outcome, wanted, class_names=inputs.class_names, **images
        )
        evaluated.append(
            evaluation_tables.Evaluated(
                title=title,
                networks=tuple(answer.network for answer in members),
                average=request.average,
                subsets=figures,
                contrasts=contrasts,
            )
        )
    first, *others = [(f"{title}, {answers[0].crops}", outcome) for title, _, outcome in found]
    comparisons = [
        contrast
        for other in others
        for contrast in subset_scores.compare_on_subsets(first, other, wanted, **images)
    ]
    return evaluated, comparisons


def _stem(request, answers):
    """Name of the files: of a single run its step, of others what tells them apart."""
    crops = "+".join(request.crops)
    if len(request.sources) == 1 and answers[0].member.step is not None:
        return f"step-{answers[0].member.step:09}_crops-{crops}"
    told = repr([(answer.member.digest, answer.crops) for answer in answers]).encode()
    return f"{len(request.sources)}-networks_crops-{crops}_{hashlib.sha256(told).hexdigest()[:8]}"
