"""Checkpoints: named variables, written atomically, read only when they verify.

Variables are kept by NAME ('model/<path>', 'rms/<path>', 'average/<path>', 'step' ...): kept by
position, as in Keras' optimizers, a changed model would restore silently into the wrong places.
One process writes; any number may read at the same time.
"""

import contextlib
import dataclasses
import math
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from inception_tf import durable
from inception_tf.errors import CheckpointError, ConfigError
from inception_tf.training import checkpoint_files
from inception_tf.training.checkpoint_files import CheckpointInfo, form, read_info

_FINAL = re.compile(r"step-(\d{9}|[1-9]\d{9,})")
_REPLACED = re.compile(r"\.replaced-[0-9a-f]{8}-step-(\d{9,})")
_LEFTOVER = re.compile(r"\.(saving|removing)-[0-9a-f]{8}-.*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSpec:
    """When to save and what to keep (gin section `checkpoints`).

    Attributes:
      every_steps: steps from one checkpoint to the next; None saves by time only.
      every_minutes: minutes from one checkpoint to the next; None saves by steps only.
      keep_last: newest checkpoints to keep, at least 1.
      keep_every_epochs: epochs of which one checkpoint each is kept for ever; None keeps none.
      keep_best: keep the one with the best averaged top-1.
      max_failed_saves: how many in a row the disk may refuse, one a minute or more, before it ends.
    """

    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep_last: int = 3
    keep_every_epochs: float | None = None
    keep_best: bool = True
    max_failed_saves: int = 10

    def __post_init__(self):
        for name in ("every_steps", "every_minutes", "keep_every_epochs"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"checkpoints.{name} must be above 0, or None.", received=value)
        for name in ("keep_last", "max_failed_saves"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"checkpoints.{name} must be at least 1.", received=value)


class CheckpointNotWritten(CheckpointError):
    """The disk did not take a checkpoint; the earlier ones are untouched."""


def steps_to_keep(
    steps: list[int], *, spec: CheckpointSpec, best_step: int | None, steps_per_epoch: float
) -> set[int]:
    """Those of `steps` (ascending) that the retention rules hold on to.

    The last `keep_last`; the first at or after each multiple of `keep_every_epochs` (the start of
    the run is none); and the best. What was kept once for its epoch is kept for ever, whatever
    was removed around it.
    """
    kept = set(steps[-spec.keep_last :])
    if spec.keep_best and best_step in steps:
        kept.add(best_step)
    if spec.keep_every_epochs:
        passed = 0
        for step in steps:
            # 1e-9: 3 x 0.1 epochs must not fall short of a multiple by a rounding.
            multiple = math.floor(step / (steps_per_epoch * spec.keep_every_epochs) + 1e-9)
            if multiple > passed:
                kept.add(step)
                passed = multiple
    return kept


class CheckpointStore:
    """The checkpoints of one run.

    Args:
      directory: where the `step-...` directories lie; made by the first save.
    """

    def __init__(self, directory: str | pathlib.Path):
        self.directory = pathlib.Path(directory)

    @classmethod
    def of_run(cls, run_dir: str | pathlib.Path) -> "CheckpointStore":
        """The store of a run directory: <run_dir>/checkpoints."""
        return cls(pathlib.Path(run_dir) / "checkpoints")

    def save(self, *, step: int, values: Mapping[str, object], facts: dict) -> pathlib.Path:
        """The directory of a new checkpoint, complete and on the disk.

        Written beside its place under a hidden name and renamed, so that no moment of a kill or a
        power failure leaves half a checkpoint. A step that exists already (a resumed run passes
        it again) must have the same variables: with the same bytes it is left as it is, otherwise
        it is replaced, and a reader finds the old or the new one at any moment.

        Args:
          step: batches consumed so far.
          values: name -> what tf.convert_to_tensor takes, any dtype but strings; at least one.
          facts: JSON values to keep beside them; 'epoch' and 'best_step' are shown by
            `python -m inception_tf.checkpoints ls`.

        Raises:
          CheckpointError: an existing checkpoint of this step has other variables.
          CheckpointNotWritten: no room, or the disk failed; nothing is left of the attempt.
        """
        if step < 0 or not values:
            raise ValueError(f"A checkpoint needs step >= 0 and variables: {step}, {len(values)}.")
        with tf.device("/CPU:0"):
            tensors = {name: tf.convert_to_tensor(value) for name, value in values.items()}
        final = self.directory / f"step-{step:09d}"
        temporary = self._hidden("saving", final)
        try:
            if not self.directory.is_dir():
                self.directory.mkdir(parents=True)
                durable.flush_to_disk(self.directory.parent)
            self._clean()
            existing = read_info(step, final)
            if existing.variables:
                self.check_matches(existing, {n: (t.shape, t.dtype) for n, t in tensors.items()})
            self._check_room(tensors)
            with tf.device("/CPU:0"), _removed_on_error(temporary):
                temporary.mkdir()
                checkpoint_files.save_files(temporary, step=step, tensors=tensors, facts=facts)
                self._put_in_place(temporary, final)
        except (OSError, tf.errors.OpError) as error:
            raise CheckpointNotWritten(
                "A checkpoint must fit on the disk.",
                received=f"{final}: {str(error).splitlines()[0]}",
                remedy="Make room there or give another --run_dir. Older checkpoints are intact.",
            ) from error
        return final

    def checkpoints(self) -> list[CheckpointInfo]:
        """Every checkpoint of the directory, damaged ones too, oldest first."""
        places = {}
        for path in self._entries():
            if match := _FINAL.fullmatch(path.name):
                places[int(match[1])] = path
        for path in self._entries():
            # A replacement that was killed between its two renames: the old one is still it.
            if match := _REPLACED.fullmatch(path.name):
                places.setdefault(int(match[1]), path)
        return [read_info(step, path) for step, path in sorted(places.items())]

    def holds_checkpoints(self) -> bool:
        """Whether a run has been saved here, usable or not: then nothing may start at step 0."""
        return any(
            path.name.startswith("step-")
            or path.suffix == ".index"  # a bundle of TensorFlow's own, put here by hand
            or _REPLACED.fullmatch(path.name)
            for path in self._entries()
        )

    def verify(self, info: CheckpointInfo) -> None:
        """Tests every byte of a checkpoint.

        Raises:
          CheckpointError: which file, and whether it is missing, empty, truncated or altered.
        """
        checkpoint_files.check_contents(info.path, checkpoint_files.read_manifest(info.path))

    def newest_verified(self) -> tuple[CheckpointInfo | None, list[tuple[pathlib.Path, str]]]:
        """The newest checkpoint whose every byte is right, and (path, reason) of those passed over.

        None when there is no such checkpoint. Entries that only look like one are passed over too.
        """
        skipped = [
            (path, "not a checkpoint: its name is not step-<9 digits>")
            for path in self._entries()
            if path.name.startswith("step-") and not _FINAL.fullmatch(path.name)
        ]
        for info in reversed(self.checkpoints()):
            try:
                self.verify(info)
            except CheckpointError as error:
                skipped.append((info.path, str(error)))
            else:
                return info, skipped
        return None, skipped

    def read(self, info: CheckpointInfo) -> dict[str, np.ndarray]:
        """All variables by name; each tensor's own checksum is tested while reading.

        Raises:
          CheckpointError: the checkpoint is damaged.
        """
        manifest = checkpoint_files.read_manifest(info.path)
        return dict(checkpoint_files.read_tensors(info.path, manifest))

    def check_matches(self, info: CheckpointInfo, expected: Mapping[str, tuple]) -> None:
        """Tests that a checkpoint holds exactly the variables that a run has.

        Args:
          expected: name -> (shape, dtype), in any form that TensorFlow understands.

        Raises:
          CheckpointError: names of variables that are missing, unexpected or of another shape or
            dtype; the first ten of each kind, with their number.
        """
        wanted = {
            name: (tuple(tf.TensorShape(shape).as_list()), tf.as_dtype(dtype).name)
            for name, (shape, dtype) in expected.items()
        }
        found = info.variables
        lists = {
            "missing": sorted(wanted.keys() - found.keys()),
            "unexpected": sorted(found.keys() - wanted.keys()),
            "different": [
                f"{name} {form(found[name])} instead of {form(wanted[name])}"
                for name in sorted(wanted.keys() & found.keys())
                if wanted[name] != found[name]
            ],
        }
        if any(lists.values()):
            differences = "; ".join(
                f"{len(names)} {kind}: {', '.join(names[:10])}{', ...' if names[10:] else ''}"
                for kind, names in lists.items()
                if names
            )
            raise CheckpointError(
                "A checkpoint must hold exactly the variables of the run.",
                received=f"{info.path} with {differences}",
                remedy="Use the configuration that wrote it, or give another --run_dir.",
            )

    def prune(
        self, spec: CheckpointSpec, *, best_step: int | None, steps_per_epoch: float
    ) -> list[pathlib.Path]:
        """Removes what the rules of `steps_to_keep` do not hold, and returns the removed paths.

        Nothing from the newest verified checkpoint on is ever removed, and one with a missing or
        cut file does not count as kept. Each is first renamed to a hidden name, so that a killed
        removal leaves no half.

        Raises:
          CheckpointError: one cannot be removed.
        """
        infos = self.checkpoints()
        whole = [info.step for info in infos if info.defect is None]
        kept = steps_to_keep(
            whole, spec=spec, best_step=best_step, steps_per_epoch=steps_per_epoch
        )
        if all(info.step in kept for info in infos):
            return []
        newest, _ = self.newest_verified()
        if newest is None:
            return []
        removed = [i.path for i in infos if i.step not in kept and i.step < newest.step]
        for path in removed:
            try:
                self._remove(path)
            except OSError as error:
                raise CheckpointError(
                    "A checkpoint that is no longer kept must be removable.",
                    received=f"{path}: {error.strerror}",
                    remedy="Check the owner and the permissions of its directory.",
                ) from error
        return removed

    def _entries(self) -> Iterator[pathlib.Path]:
        if self.directory.is_dir():
            yield from sorted(self.directory.iterdir())

    def _hidden(self, purpose: str, final: pathlib.Path) -> pathlib.Path:
        return self.directory / f".{purpose}-{secrets.token_hex(4)}-{final.name}"

    def _put_in_place(self, temporary: pathlib.Path, final: pathlib.Path) -> None:
        """Renames a complete checkpoint to its place, past one that may be there already."""
        if not final.exists():
            temporary.rename(final)
            durable.flush_to_disk(self.directory)
            return
        if self._is_same(temporary, final):
            shutil.rmtree(temporary)
            return
        replaced = self._hidden("replaced", final)
        final.rename(replaced)
        temporary.rename(final)
        durable.flush_to_disk(self.directory)
        with contextlib.suppress(OSError):  # the next save tries again
            self._remove(replaced)

    def _is_same(self, temporary: pathlib.Path, final: pathlib.Path) -> bool:
        # The manifests hold the checksums of all files, so that equal ones mean equal bits.
        try:
            manifest = checkpoint_files.read_manifest(final)
            checkpoint_files.check_contents(final, manifest)
        except CheckpointError:
            return False
        return manifest == checkpoint_files.read_manifest(temporary)

    def _clean(self) -> None:
        """Removes what killed saves and removals left, and ends an unfinished replacement."""
        for path in list(self._entries()):
            if _LEFTOVER.fullmatch(path.name):
                _delete(path)
            elif match := _REPLACED.fullmatch(path.name):
                final = self.directory / f"step-{match[1]}"
                if final.exists():
                    self._remove(path)
                else:
                    path.rename(final)

    def _check_room(self, tensors: Mapping[str, tf.Tensor]) -> None:
        # 256: an index entry. A tenth more, since the file system counts in blocks.
        num_bytes = sum(int(t.shape.num_elements()) * t.dtype.size + 256 for t in tensors.values())
        free_bytes = shutil.disk_usage(self.directory).free
        if num_bytes * 1.1 > free_bytes:
            raise CheckpointNotWritten(
                f"A checkpoint of {num_bytes:,} bytes must fit on the disk.",
                received=f"{free_bytes:,} bytes free at {self.directory}",
                remedy="Make room there, keep fewer checkpoints or give another --run_dir.",
            )

    def _remove(self, path: pathlib.Path) -> None:
        hidden = self.directory / f".removing-{secrets.token_hex(4)}-{path.name.lstrip('.')}"
        path.rename(hidden)
        _delete(hidden)


@contextlib.contextmanager
def _removed_on_error(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _delete(path)
        raise


def _delete(path: pathlib.Path) -> None:
    # What cannot be deleted now keeps its hidden name and is tried again by the next save.
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
