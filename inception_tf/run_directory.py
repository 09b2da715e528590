"""What a run directory keeps beside checkpoints and metrics: its configuration and its facts."""

import contextlib
import dataclasses
import fcntl
import json
import pathlib

from inception_tf import durable
from inception_tf.data.photo import PhotoEdits
from inception_tf.errors import CheckpointError, ConfigError

CONFIG_FILE = "config.gin"
FACTS_FILE = "run.json"
CHANGES_FILE = "changes.jsonl"
STARTS_FILE = "starts.jsonl"
LOCK_FILE = ".lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was true at a run's first start and decides its bits, or what its outputs mean.

    Attributes:
      num_classes: classes without background.
      class_names: one name per class; () for generated batches.
      num_examples: training examples: the order of the records is a function of them.
      device_kind: 'CPU' or 'GPU'.
      intra_op_threads: per process; a resumed run uses them again.
      deterministic: whether kernels were deterministic.
      topology: devices and workers, where the order of the sums matters; else ''.
      kernels: what else decides which kernels compute: name -> value.
      identity: of the network, fields of a NetworkIdentity; None in runs of before it was kept.
      photo_edits: what was done to the images when they became records, so that it can be done to
        those of users; nothing in runs of before it was kept.
    """

    num_classes: int
    class_names: tuple[str, ...]
    num_examples: int
    device_kind: str
    intra_op_threads: int
    deterministic: bool
    topology: str
    kernels: dict[str, str]
    identity: dict | None = None
    photo_edits: PhotoEdits = PhotoEdits()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a run: the first, or one that went on.

    Attributes:
      step: batches consumed before it.
      unix_secs: wall time of the chief.
      num_workers, num_devices: of the whole job.
    """

    step: int
    unix_secs: float
    num_workers: int
    num_devices: int


class RunDirectory:
    """The files of a run that are neither checkpoints nor metrics."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    @property
    def config_file(self) -> pathlib.Path:
        """Where the resolved configuration lies once a run has started."""
        return self.path / CONFIG_FILE

    @property
    def facts_file(self) -> pathlib.Path:
        """Where the facts lie once a run has started."""
        return self.path / FACTS_FILE

    def holds_run(self) -> bool:
        """Whether a run was started here: not any directory is one."""
        return self.config_file.is_file() or self.facts_file.is_file()

    @contextlib.contextmanager
    def lock(self):
        """Keeps every other process from writing here, for as long as the `with` lasts.

        Where no run was begun meanwhile, no trace of the lock is left.

        Raises:
          ConfigError: another process trains in this directory, or it cannot be written.
        """
        try:
            made = durable.make_directory(self.path)
            file = open(self.path / LOCK_FILE, "a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                "A run directory must be writable.", received=str(error)
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    "A run directory has one training process (with its workers) at a time.",
                    received=f"{self.path}, where another one is at work",
                    remedy="Wait for it or stop it, or give another --run_dir. Several tasks that "
                    "should be one job need TF_CONFIG.",
                ) from None
            except OSError:
                pass  # a file system without locks: nothing can be known
            try:
                yield
            finally:
                if made and not self.holds_run():
                    (self.path / LOCK_FILE).unlink(missing_ok=True)
                    durable.remove_empty(made)

    def check_unlocked(self) -> None:
        """Raises ConfigError where another process trains here; makes and changes nothing."""
        if (self.path / LOCK_FILE).exists():
            with self.lock():
                pass

    def save_config(self, text: str) -> None:
        """Keeps the resolved configuration; before the first step."""
        _save_text(self.config_file, text)

    def save_facts(self, facts: RunFacts) -> None:
        """Keeps the facts; before the first step."""
        _save_text(self.facts_file, json.dumps(dataclasses.asdict(facts), indent=1) + "\n")

    def add_changes(self, step, changes) -> None:
        """Records (parameter, before, now) of a run that goes on with another operation."""
        if not changes:
            return
        with open(self.path / CHANGES_FILE, "a", encoding="utf-8") as stream:
            for parameter, before, now in changes:
                row = {"step": step, "parameter": parameter, "before": before, "now": now}
                stream.write(json.dumps(row) + "\n")

    def add_start(self, start: Start) -> None:
        """Records a start, before its first step; whole or not at all, behind those before it."""
        path = self.path / STARTS_FILE
        earlier = path.read_bytes() if path.exists() else b""
        line = json.dumps(dataclasses.asdict(start), sort_keys=True)
        durable.save_bytes(path, earlier + line.encode() + b"\n")

    def read_starts(self) -> list[Start]:
        """Every start, in order; [] of a run from before they were recorded.

        Raises:
          CheckpointError: the file is not what a run writes.
        """
        path = self.path / STARTS_FILE
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            return [Start(**json.loads(line)) for line in lines]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{STARTS_FILE} of a run directory must be the one that its run wrote.",
                received=f"{path}: {type(error).__name__}: {error}",
                remedy="Remove it: it is for the report alone.",
            ) from error

    def has_changed_network(self) -> bool:
        """Whether the run went on with another network than its facts tell of."""
        if not (self.path / CHANGES_FILE).is_file():
            return False
        text = (self.path / CHANGES_FILE).read_text(encoding="utf-8")
        return '"parameter": "model.' in text

    def read_facts(self) -> RunFacts | None:
        """The facts of the first start; None where no run has started.

        Raises:
          CheckpointError: the file is not what a run writes.
        """
        try:
            stored = json.loads(self.facts_file.read_text(encoding="utf-8"))
            read = {
                "class_names": tuple(stored["class_names"]),
                "photo_edits": PhotoEdits(**stored.get("photo_edits", {})),
            }
            return RunFacts(**{**stored, **read})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{FACTS_FILE} of a run directory must be the one that its run wrote.",
                received=f"{self.facts_file}: {type(error).__name__}: {error}",
                remedy="Restore the file, or give another --run_dir.",
            ) from error


def _save_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.save_text(path, text)
