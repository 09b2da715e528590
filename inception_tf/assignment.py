"""Which declared replica runs on which device: plain arithmetic."""

import dataclasses

from inception_tf.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which declared replica runs on which physical replica: r, r + R, r + 2R, ...

    Attributes:
      num_replicas: declared replicas N.
      replica_batch: images n of one declared replica per step.
      num_physical: physical replicas R over all workers, at most N.
      first_local: id of this worker's first physical replica.
      num_local: this worker's physical replicas.
    """

    num_replicas: int
    replica_batch: int
    num_physical: int = 1
    first_local: int = 0
    num_local: int = 1

    def __post_init__(self):
        for name in ("num_replicas", "replica_batch"):
            if getattr(self, name) < 1:
                received = getattr(self, name)
                raise ConfigError(f"training.{name} must be at least 1.", received=received)
        if self.num_physical > self.num_replicas:
            raise ConfigError(
                "There cannot be more devices than declared replicas.",
                received=f"{self.num_physical} devices for {self.num_replicas} declared replicas",
                remedy="Set cluster.devices_per_worker so that at most "
                f"{self.num_replicas} devices take part, or declare more replicas of fewer images "
                "(training.num_replicas, training.replica_batch): that changes the recipe.",
            )

    @property
    def global_batch(self) -> int:
        """Images per step, over all workers."""
        return self.num_replicas * self.replica_batch

    @property
    def rounds(self) -> int:
        """Declared replicas of the busiest physical replica."""
        return -(-self.num_replicas // self.num_physical)

    def declared_of(self, physical: int) -> range:
        """The declared replicas of one physical replica, in the order it runs them."""
        return range(physical, self.num_replicas, self.num_physical)
