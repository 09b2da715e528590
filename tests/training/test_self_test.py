"""The self-test of every start: right as installed, and each mistake is refused by its name."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

from inception_tf.cluster import Cluster
from inception_tf.errors import UserError
from inception_tf.training import self_test
from inception_tf.training.optimizer import clip_scale
from inception_tf.training.reduction import GRADIENT_BITS, from_grid, to_grid
from inception_tf.training.step import TrainStep


@pytest.fixture(scope="module")
def here():
    return Cluster(
        strategy=tf.distribute.MirroredStrategy(["CPU:0"]),
        device_kind="CPU",
        device_names=("CPU",),
        num_workers=1,
        worker_index=0,
        num_local=1,
        intra_op_threads=1,
        deterministic=True,
    )


def test_the_installed_versions_pass_in_silence(here, capfd):
    self_test.check_semantics(here, reduction="exact")
    assert capfd.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_other_reductions_pass(here, kind):
    self_test.check_semantics(here, reduction=kind)


class ClipsEveryReplica(TrainStep):
    """Each declared replica's gradient is clipped, and then they are reduced."""

    def __init__(self, strategy, state, recipe, **kwargs):
        limit = recipe.clip_global_norm
        recipe = dataclasses.replace(recipe, clip_global_norm=None)
        super().__init__(strategy, state, recipe, **kwargs)
        of_replica = self.declared_replica.contribution

        def contribution(*args):
            sums, counted = of_replica(*args)
            values = [from_grid(gradients, GRADIENT_BITS) for gradients, _ in sums]
            scale = clip_scale(tf.linalg.global_norm(values), limit)
            clipped = [to_grid(value * scale, GRADIENT_BITS) for value in values]
            return [(one, moving) for one, (_, moving) in zip(clipped, sums)], counted

        self.declared_replica.contribution = contribution


class ClipsTheSum(TrainStep):
    """The bound is held by the sum, and so lies N times too low for the mean."""

    def __init__(self, strategy, state, recipe, **kwargs):
        super().__init__(strategy, state, recipe, **kwargs)
        own, count = self.update.apply, recipe.assignment.num_replicas

        def apply(step, is_applied, means, *, norm, learning_rate):
            scale = clip_scale(norm * count, recipe.clip_global_norm)
            means = [([one * scale for one in gradients], moving) for gradients, moving in means]
            return own(step, is_applied, means, norm=norm * 0.0, learning_rate=learning_rate)

        self.update.apply = apply


class TakesSums(TrainStep):
    """Gradients are added up and not averaged."""

    def __init__(self, strategy, state, recipe, **kwargs):
        super().__init__(strategy, state, recipe, **kwargs)
        own, count = self.update.add_l2, recipe.assignment.num_replicas
        self.update.add_l2 = lambda gradients, *rest: own([one * count for one in gradients], *rest)


class AddsL2Twice(TrainStep):
    """L2 as if every declared replica had its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        own = self.update.add_l2
        self.update.add_l2 = lambda gradients, *rest: own(own(gradients, *rest)[0], *rest)


class TakesFirstStatistics(TrainStep):
    """Only the first declared replica's statistics count."""

    def __init__(self, strategy, state, recipe, **kwargs):
        super().__init__(strategy, state, recipe, **kwargs)
        of_replica = self.declared_replica.contribution

        def contribution(images, labels, step, declared):
            sums, counted = of_replica(images, labels, step, declared)
            share = tf.where(declared == 0, recipe.assignment.num_replicas, 0)
            share = tf.cast(share, tf.int64)
            return [(gradients, moving * share) for gradients, moving in sums], counted

        self.declared_replica.contribution = contribution


class DropsTheSameEverywhere(TrainStep):
    """One dropout key for all declared replicas."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        value = self.declared_replica._fixed_value
        self.declared_replica._fixed_value = lambda variable, step, declared: value(
            variable, step, declared * 0
        )


class DropsTheSameAlways(TrainStep):
    """Dropout does not know the step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        value = self.declared_replica._fixed_value
        self.declared_replica._fixed_value = lambda variable, step, declared: value(
            variable, step * 0, declared
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "broken"),
    [
        (ClipsEveryReplica, self_test._CLIPPING),
        (ClipsTheSum, self_test._CLIPPING),
        (TakesSums, self_test._GRADIENTS),
        (AddsL2Twice, self_test._GRADIENTS),
        (TakesFirstStatistics, self_test._STATISTICS),
        (DropsTheSameEverywhere, self_test._DROPOUT),
        (DropsTheSameAlways, self_test._DROPOUT),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_is_refused_by_its_name_alone(here, mistake, broken):
    with pytest.raises(UserError) as caught:
        self_test.check_semantics(here, reduction="exact", step_class=mistake)
    text = str(caught.value)
    assert f"does not hold: {broken}." in text
    assert f"tensorflow {tf.__version__}" in text and "keras 3." in text
    assert caught.value.exit_status == 2


def test_another_generator_of_masks_is_refused():
    masks = self_test._masks(0, 3)
    assert self_test._wrong_masks(0, masks) == set()
    assert self_test._wrong_masks(0, masks[::-1]) == {self_test._DROPOUT}
    assert self_test._wrong_masks(1, masks[[0, 0]]) == {self_test._DROPOUT}


def test_devices_that_hold_other_variables_are_refused():
    def state(*copies):
        tensors = [tf.constant(copy) for copy in copies]
        return types.SimpleNamespace(named_variables=lambda: {"w": tensors})

    strategy = types.SimpleNamespace(experimental_local_results=lambda variable: variable)
    assert self_test._unequal_copies(strategy, state(1.0, 1.0)) == set()
    assert self_test._unequal_copies(strategy, state(1.0, 1.5)) == {self_test._COPIES}


def test_a_value_that_is_no_number_is_never_right():
    before = {self_test._KERNEL: np.zeros(2)}
    expected = {self_test._KERNEL: np.ones(2)}
    found = {self_test._KERNEL: np.array([1.0, np.nan])}
    assert self_test._differences(found, expected, before, tolerance=1.0) == {self_test._GRADIENTS}
