"""Looks at the checkpoints of a run: `python -m inception_tf.checkpoints ls|verify|diff|convert`.

    ls RUN [--verify]                    a table of them
    verify RUN [--step N]                reads every byte; status 2 when one is damaged
    diff RUN STEP_A STEP_B               status 0 when the bits are the same, 1 when not
    diff RUN_A RUN_B [--step N]          the same between two runs
    convert RUN --out FILE               averaged or raw weights as .weights.h5 or .safetensors
"""

import argparse
import dataclasses
import datetime
import pathlib
import sys
from collections.abc import Mapping

import numpy as np

from inception_tf import quiet_start  # noqa: F401  before whatever imports TensorFlow
from inception_tf.errors import CheckpointError, UserError, tells_user_errors
from inception_tf.models.layers import is_seed_state
from inception_tf.training.checkpoint import CheckpointInfo, CheckpointStore
from inception_tf.training.checkpoint_files import MANIFEST_NAME

GROUP_ORDER = ("model", "rms", "momentum", "average")


@tells_user_errors
def main(argv: list[str] | None = None) -> int:
    """Exit status of one command; a user's error is printed as one message."""
    arguments = _build_parser().parse_args(argv)
    return arguments.command(arguments)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inception_tf.checkpoints")
    verbs = parser.add_subparsers(required=True, metavar="ls|verify|diff|convert")

    verb = verbs.add_parser("ls", help="list the checkpoints of a run")
    verb.set_defaults(command=_list)
    verb.add_argument("run", help="run directory, such as runs/irv2")
    verb.add_argument("--verify", action="store_true", help="read every byte")

    verb = verbs.add_parser("verify", help="test every byte against the checksums")
    verb.set_defaults(command=_verify)
    verb.add_argument("run")
    verb.add_argument("--step", type=int, help="this one only")

    verb = verbs.add_parser("diff", help="compare two checkpoints variable by variable")
    verb.set_defaults(command=_diff)
    verb.add_argument("what", nargs="+", help="RUN STEP_A STEP_B, or RUN_A RUN_B")
    verb.add_argument("--step", type=int, help="of both runs; else the newest verified of each")
    verb.add_argument("--top", type=int, default=10, help="variables to list (10)")

    verb = verbs.add_parser("convert", help="write the weights for other programs")
    verb.set_defaults(command=_convert)
    verb.add_argument("run")
    verb.add_argument("--out", required=True, help="a .weights.h5 or .safetensors file")
    verb.add_argument("--weights", choices=("averaged", "raw"), default="averaged")
    verb.add_argument("--step", type=int, help="else the newest that verifies")
    return parser


def _open_store(run_dir: str) -> CheckpointStore:
    store = CheckpointStore.of_run(run_dir)
    if not store.directory.is_dir():
        raise CheckpointError(
            "A run directory must hold a directory named checkpoints.",
            received=run_dir,
            remedy="Give the --run_dir of a training that has saved at least once.",
        )
    return store


def _select(run_dir: str, step: int | None) -> tuple[CheckpointStore, CheckpointInfo]:
    """The verified checkpoint of `step`, or the newest one; what is passed over is printed."""
    store = _open_store(run_dir)
    if step is not None:
        info = _find(store, step)
        store.verify(info)
        return store, info
    info, skipped = store.newest_verified()
    for path, reason in skipped:
        print(f"passed over {path.name}: {reason}", file=sys.stderr)
    if info is None:
        raise CheckpointError("A run must have a checkpoint that verifies.", received=run_dir)
    return store, info


def _find(store: CheckpointStore, step: int) -> CheckpointInfo:
    infos = store.checkpoints()
    for info in infos:
        if info.step == step:
            return info
    there = ", ".join(str(info.step) for info in infos) or "none"
    raise CheckpointError(
        f"A checkpoint of step {step} must be in {store.directory}.",
        received=f"steps {there}" if infos else "no checkpoint at all",
    )


def _list(arguments: argparse.Namespace) -> int:
    store = _open_store(arguments.run)
    infos = store.checkpoints()
    if not infos:
        print(f"no checkpoint in {store.directory}")
        return 0
    best_step = next((i.facts["best_step"] for i in infos[::-1] if "best_step" in i.facts), None)
    print(f"{'step':>12} {'epoch':>9} {'size':>10}  {'written':16} {'variables':>9}  state")
    for info in infos:
        reason = info.defect
        if arguments.verify and reason is None:
            reason = _reason_not_whole(store, info)
        state = f"damaged: {reason}" if reason else "verified" if arguments.verify else "-"
        epoch = info.facts.get("epoch")
        print(
            f"{info.step:>12,} {'-' if epoch is None else f'{epoch:.2f}':>9}"
            f" {info.num_bytes / 2**20:>6,.1f} MiB  {_written(info.path):16}"
            f" {len(info.variables):>9,}  {state}{'  best' if info.step == best_step else ''}"
        )
    return 0


def _written(path: pathlib.Path) -> str:
    try:
        seconds = (path / MANIFEST_NAME).stat().st_mtime
    except OSError:
        return "-"
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def _reason_not_whole(store: CheckpointStore, info: CheckpointInfo) -> str | None:
    try:
        store.verify(info)
    except CheckpointError as error:
        return str(error)
    return None


def _verify(arguments: argparse.Namespace) -> int:
    store = _open_store(arguments.run)
    step = arguments.step
    infos = store.checkpoints() if step is None else [_find(store, step)]
    if not infos:
        raise CheckpointError("There must be a checkpoint to verify.", received=store.directory)
    num_damaged = 0
    for info in infos:
        reason = _reason_not_whole(store, info)
        num_damaged += reason is not None
        whole = f"whole, {len(info.variables):,} variables, {info.num_bytes:,} bytes"
        print(f"step {info.step:,}: {whole if reason is None else f'DAMAGED: {reason}'}")
    return CheckpointError.exit_status if num_damaged else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """One variable in two checkpoints: whether its bits differ, how far its values lie apart."""

    name: str
    is_different: bool
    max_abs: float

    @property
    def group(self) -> str:
        """'model', 'rms', 'momentum', 'average' ...; 'run' for what has no group (the step)."""
        return self.name.split("/")[0] if "/" in self.name else "run"


def compare(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> list[Difference]:
    """Differences of all variables that both have with one shape and dtype, by name.

    Bits decide what differs: NaN equals NaN of the same bits, and -0.0 differs from 0.0 by 0.
    """
    differences = []
    for name in sorted(a.keys() & b.keys()):
        x, y = a[name], b[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            continue
        is_different = not np.array_equal(_bytes_of(x), _bytes_of(y))
        max_abs = 0.0
        if is_different:
            with np.errstate(invalid="ignore"):
                max_abs = float(np.max(np.abs(x.astype(np.float64) - y.astype(np.float64))))
        differences.append(Difference(name=name, is_different=is_different, max_abs=max_abs))
    return differences


def _bytes_of(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def _diff(arguments: argparse.Namespace) -> int:
    what = arguments.what
    if len(what) == 3 and what[1].isdecimal() and what[2].isdecimal():
        sides = [(what[0], int(what[1])), (what[0], int(what[2]))]
    elif len(what) == 2:
        sides = [(run_dir, arguments.step) for run_dir in what]
    else:
        raise UserError(
            "diff takes RUN STEP_A STEP_B, or RUN_A RUN_B [--step N].", received=" ".join(what)
        )
    values = []
    for letter, (run_dir, step) in zip("AB", sides, strict=True):
        store, info = _select(run_dir, step)
        print(f"{letter}: {run_dir} step {info.step:,}, {len(info.variables):,} variables")
        values.append(store.read(info))
    return _print_differences(*values, num_listed=arguments.top)


def _print_differences(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray], *, num_listed: int
) -> int:
    differences = compare(a, b)
    different = [difference for difference in differences if difference.is_different]
    compared = {difference.name for difference in differences}
    other_form = sorted((a.keys() & b.keys()) - compared)
    for title, names in (
        ("only in A", sorted(a.keys() - b.keys())),
        ("only in B", sorted(b.keys() - a.keys())),
    ):
        if names:
            print(f"{title} ({len(names):,}):", *names, sep="\n  ")
    if other_form:
        print(f"other shape or dtype ({len(other_form):,}):")
        for name in other_form:
            x, y = a[name], b[name]
            print(f"  {name}: {x.dtype.name} {list(x.shape)}, {y.dtype.name} {list(y.shape)}")
    groups = {difference.group for difference in differences}
    ordered = [group for group in GROUP_ORDER if group in groups]
    print(f"{'group':12} {'variables':>9} {'different':>9}  max |a-b|")
    for group in [*ordered, *sorted(groups - set(ordered))]:
        members = [difference for difference in differences if difference.group == group]
        num_different = sum(difference.is_different for difference in members)
        farthest = np.max([difference.max_abs for difference in members])  # NaN if one is
        print(f"{group:12} {len(members):>9,} {num_different:>9,}  {farthest:.3g}")
    if different:
        # NaN first: it compares with nothing, and is the first thing to look at.
        different.sort(key=lambda d: (-np.inf if np.isnan(d.max_abs) else -d.max_abs, d.name))
        print("farthest apart:")
        for difference in different[:num_listed]:
            print(f"  {difference.max_abs:<10.3g} {difference.name}")
    is_same = not different and a.keys() == b.keys() and not other_form
    print("the same bits" if is_same else "different")
    return 0 if is_same else 1


def select_weights(values: Mapping[str, np.ndarray], *, kind: str) -> dict[str, np.ndarray]:
    """Keras path -> weight, of a checkpoint's variables.

    Args:
      kind: 'raw', or 'averaged': the running average where there is one, else the raw weight
        (frozen weights have no average).

    Raises:
      CheckpointError: averages are asked for and there are none, or there are no weights.
    """
    weights = {
        name.removeprefix("model/"): value
        for name, value in values.items()
        if name.startswith("model/") and not is_seed_state(name)
    }
    if not weights:
        raise CheckpointError(
            "A checkpoint to convert must hold variables named model/<path>.",
            received=f"{len(values)} variables: {', '.join(sorted(values)[:10])}",
        )
    if kind == "averaged":
        averages = {p: values[f"average/{p}"] for p in weights if f"average/{p}" in values}
        if not averages:
            raise CheckpointError(
                "Averaged weights must be in the checkpoint.",
                received="a checkpoint without averages",
                remedy="Ask for --weights=raw.",
            )
        weights |= averages
    return weights


def _convert(arguments: argparse.Namespace) -> int:
    out = pathlib.Path(arguments.out)
    writers = {".weights.h5": _save_keras, ".safetensors": _save_safetensors}
    suffix = next((suffix for suffix in writers if out.name.endswith(suffix)), None)
    if suffix is None or not out.parent.is_dir():
        rule = "--out must be a .weights.h5 or .safetensors file in a directory that exists."
        raise UserError(rule, received=arguments.out)
    store, info = _select(arguments.run, arguments.step)
    weights = select_weights(store.read(info), kind=arguments.weights)
    about = {"step": str(info.step), "weights": arguments.weights}
    writers[suffix](out, weights, run_dir=arguments.run, about=about)
    print(f"{out}: {arguments.weights} weights of step {info.step:,}, {len(weights):,} tensors")
    return 0


def _save_keras(
    path: pathlib.Path, weights: dict[str, np.ndarray], *, run_dir: str, about: dict[str, str]
) -> None:
    """Writes Keras' own layout, which is the model's: so the run's model is built first."""
    from inception_tf import run_config  # builds models, which most verbs need not
    from inception_tf.models.weights import own_format

    model = run_config.build_model_of_run(run_dir)
    form_of = {weight.path: tuple(weight.shape) for weight in model.weights}
    wrong = sorted(
        path
        for path in form_of.keys() | weights.keys()
        if path not in form_of or path not in weights or form_of[path] != weights[path].shape
    )
    if wrong:
        raise CheckpointError(
            "The checkpoint must hold the weights of the model that the run's config builds.",
            received=f"{len(wrong)} missing, unexpected or differing: {', '.join(wrong[:10])}",
            remedy=f"The config in {run_dir} is not the one that wrote step {about['step']}.",
        )
    for weight in model.weights:
        weight.assign(weights[weight.path])
    own_format.save_own_weights(model, path, identity=run_config.identity_of_run(run_dir))


def _save_safetensors(
    path: pathlib.Path, weights: dict[str, np.ndarray], *, run_dir: str, about: dict[str, str]
) -> None:
    from inception_tf import run_config
    from inception_tf.models.weights import own_format

    identity = run_config.identity_of_run(run_dir)
    own_format.save_own_tensors(weights, path, identity=identity, about=about)


if __name__ == "__main__":
    sys.exit(main())
