"""The variables of a run, by name: what a checkpoint holds and what the step updates."""

import tensorflow as tf

from inception_tf.errors import CheckpointError
from inception_tf.models.layers import is_seed_state
from inception_tf.training.groups import updated_statistics

# name -> (dtype, first value); best: top-1 of the averaged weights in [0, 1], -1 for none yet.
_SCALARS = {
    "step": (tf.int64, 0),
    # Since the last row of metrics, so that a row is the same whoever resumed in between.
    "clipped_steps": (tf.int64, 0),
    "last_row_step": (tf.int64, 0),
    "best_step": (tf.int64, -1),
    "best_top1": (tf.float64, -1.0),
}
_LOSS_SCALE_SCALARS = {"loss_scale": (tf.float32, None), "loss_scale_good_steps": (tf.int64, 0)}


class RunState:
    """Every variable of a run; with its step number it IS the run.

    Attributes:
      model: the keras.Model, already frozen by its variable groups.
      trained: list of TrainedVariable.
      statistics: moving statistics (Keras variables) that the step updates.
      slots: path -> {slot name: variable}; only for trained variables.
      averages: path -> variable; for trained variables and updated statistics.
      scalars: name -> variable: step, counters, best result and, in float16, the loss scale.
    """

    def __init__(self, model, trained, *, optimizer, initial_loss_scale=None):
        """Creates the variables; call inside `strategy.scope()`."""
        self.model = model
        self.trained = trained
        self.statistics = updated_statistics(model)
        self.slots = {
            item.path: {
                name: _variable(tf.fill(item.variable.shape, start), f"{name}/{item.path}")
                for name, start in optimizer.slots.items()
            }
            for item in trained
        }
        averaged = [item.variable for item in trained] + self.statistics
        self.averages = {
            variable.path: _variable(tf.identity(variable.value), f"average/{variable.path}")
            for variable in averaged
        }
        scalars = dict(_SCALARS)
        if initial_loss_scale is not None:
            scalars.update(_LOSS_SCALE_SCALARS)
            scalars["loss_scale"] = (tf.float32, initial_loss_scale)
        self.scalars = {
            name: _variable(tf.constant(start, dtype), name)
            for name, (dtype, start) in scalars.items()
        }

    def named_variables(self):
        """Name -> tf.Variable of all that a checkpoint holds, in a fixed order."""
        named = dict(self.scalars)
        for variable in model_variables(self.model):
            named[f"model/{variable.path}"] = variable.value
        for path, slots in self.slots.items():
            for name, slot in slots.items():
                named[f"{name}/{path}"] = slot
        for path, average in self.averages.items():
            named[f"average/{path}"] = average
        return named

    def values(self):
        """Name -> NumPy array of every variable."""
        return {name: variable.numpy() for name, variable in self.named_variables().items()}

    def expected(self):
        """Name -> (shape, dtype name) of every variable, to hold a checkpoint against."""
        return {
            name: (tuple(variable.shape), variable.dtype.name)
            for name, variable in self.named_variables().items()
        }

    def restore(self, values):
        """Assigns every variable from name -> array.

        Raises:
          CheckpointError: a variable has no value (checked before anything is assigned).
        """
        named = self.named_variables()
        missing = sorted(set(named) - set(values))
        if missing:
            raise CheckpointError(
                "Every variable of the run needs a value.", received=f"none for {missing[:10]}"
            )
        for name, variable in named.items():
            variable.assign(values[name])

    def evaluated_variables(self, *, averaged):
        """The model's trainable and non-trainable variables as an evaluation is to use them.

        Args:
          averaged: take the average of each variable that has one.

        Returns:
          Two lists of variables, in the order of `model.trainable_variables` and
          `model.non_trainable_variables`.
        """

        def pick(variable):
            if averaged and variable.path in self.averages:
                return self.averages[variable.path]
            return variable.value

        model = self.model
        return (
            [pick(variable) for variable in model.trainable_variables],
            [pick(variable) for variable in model.non_trainable_variables],
        )


def is_dropout_seed(variable):
    """Whether a Keras variable is the state of a seed generator, which the step replaces."""
    return is_seed_state(variable.path)


def model_variables(model):
    """The model's variables that belong to a run: all but the seed generators' state."""
    return [variable for variable in model.variables if not is_dropout_seed(variable)]


def _variable(value, name):
    # No aggregation: the step updates each device's copy itself, from the same reduced values.
    return tf.Variable(value, trainable=False, name=name.replace("/", "_"))
