"""What a run directory keeps beside checkpoints and metrics: its configuration and its facts."""

import dataclasses
import json
import os
import pathlib
import tempfile

from inception_tf.errors import CheckpointError

CONFIG_FILE = "config.gin"
FACTS_FILE = "run.json"
CHANGES_FILE = "changes.jsonl"


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
      versions: package -> version.
    """

    num_classes: int
    class_names: tuple[str, ...]
    num_examples: int
    device_kind: str
    intra_op_threads: int
    deterministic: bool
    versions: dict[str, str]


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

    def read_facts(self) -> RunFacts | None:
        """The facts of the first start; None where no run has started.

        Raises:
          CheckpointError: the file is not what a run writes.
        """
        try:
            stored = json.loads(self.facts_file.read_text(encoding="utf-8"))
            return RunFacts(**{**stored, "class_names": tuple(stored["class_names"])})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{FACTS_FILE} of a run directory must be the one that its run wrote.",
                received=f"{self.facts_file}: {type(error).__name__}: {error}",
                remedy="Restore the file, or give another --run_dir.",
            ) from error


def _save_text(path, text):
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
