"""Every layer, stage and total of every network against the tables and published counts.

Input 299x299x3. The numbers written here are those of the papers' figures and of the released
code, worked out by hand, and the published ones; none was taken from this project's networks.
"""

import collections
import math

import keras
import pytest
from filled_weights import zero_initial_weights
from golden_layers import NETWORKS, TABLES, read_rows

from inception_tf.models.catalog import CATALOG
from inception_tf.models.counting import count_multiply_adds, count_parameters
from inception_tf.models.inception_resnet_v2 import inception_resnet_v2
from inception_tf.models.layers import ConvUnit
from inception_tf.models.stage_builder import endpoints

V3, V4 = ("inception_v3", "released"), ("inception_v4", "released")
V4_PAPER = ("inception_v4", "paper")
RV1, FACENET = ("inception_resnet_v1", "paper"), ("inception_resnet_v1", "facenet")
RV2_PAPER, RV2 = ("inception_resnet_v2", "paper"), ("inception_resnet_v2", "released")

# Convolutions with batch norm, layers with bias, channels with batch norm, multiply-adds;
# 1000 classes, no auxiliary head.
STRUCTURE = {
    V3: (94, 1, 17_216, 5_713_216_096),
    V4: (149, 1, 31_584, 12_253_974_624),
    RV1: (107, 21, 13_520, 6_206_361_696),
    FACENET: (111, 22, 14_288, 6_308_597_856),
    RV2_PAPER: (112, 21, 16_432, 9_257_953_632),
    RV2: (204, 41, 30_272, 13_155_794_016),
}
# (trainable, total), then (trainable, total) with gamma; 1000 classes, no auxiliary head.
PLAIN = {
    V3: ((23_817_352, 23_851_784), (23_834_568, 23_869_000)),
    V4: ((42_648_232, 42_711_400), (42_679_816, 42_742_984)),
    RV1: ((22_742_808, 22_769_848), (22_756_328, 22_783_368)),
    FACENET: ((24_342_808, 24_371_384), (24_357_096, 24_385_672)),
    RV2_PAPER: ((32_417_496, 32_450_360), (32_433_928, 32_466_792)),
    RV2: ((55_813_192, 55_873_736), (55_843_464, 55_904_008)),
}
WITHOUT_TOP = {
    V3: (21_768_352, 21_802_784),
    V4: (41_111_232, 41_174_400),
    RV1: (20_949_808, 20_976_848),
    FACENET: (22_549_808, 22_578_384),
    RV2_PAPER: (30_272_496, 30_305_360),
    RV2: (54_276_192, 54_336_736),
}
WITH_AUX = {
    V3: ((27_143_152, 27_179_376), (27_161_264, 27_197_488)),
    V4: ((46_006_800, 46_071_760), (46_039_280, 46_104_240)),
    RV2_PAPER: ((35_792_448, 35_827_104), (35_809_776, 35_844_432)),
    RV2: ((59_179_952, 59_242_288), (59_211_120, 59_273_456)),
}
for table in (STRUCTURE, PLAIN, WITHOUT_TOP, WITH_AUX):
    table[V4_PAPER] = table[V4]
# The released checkpoints: 1001 classes, auxiliary head, no gamma.
CHECKPOINTS = {
    V3: (27_145_970, 27_182_194),
    V4: (46_009_106, 46_074_066),
    RV2: (59_182_258, 59_244_594),
}
# Variables (all, trainable): of the checkpoints; of the others without auxiliary head.
NUM_VARIABLES = {
    V3: (388, 196),
    V4: (608, 306),
    V4_PAPER: (608, 306),
    RV1: (470, 256),
    FACENET: (486, 264),  # the trunk alone
    RV2_PAPER: (490, 266),
    RV2: (908, 496),
}

V4_STAGES = {
    "stem": (604_864, 2_289_943_648),
    **{f"Mixed_5{letter}": (317_024, 387_609_600) for letter in "bcde"},
    "Mixed_6a": (2_305_056, 1_097_164_800),
    **{f"Mixed_6{letter}": (2_933_984, 847_264_768) for letter in "bcdefgh"},
    "Mixed_7a": (2_745_856, 511_098_880),
    **{f"Mixed_7{letter}": (4_549_824, 290_979_840) for letter in "bcd"},
    "AuxLogits": (3_359_337, 6_503_168),
    "Logits": (1_538_537, 1_537_536),
}
RV1_STAGES = {
    "stem": (614_896, 1_882_680_416),
    "A blocks": (386_240, 470_400_000),
    "Mixed_6a": (1_709_056, 850_169_856),
    "B blocks": (6_895_360, 1_988_689_920),
    "Mixed_7a": (3_344_256, 501_448_704),
    "C blocks": (8_000_000, 511_180_800),
}
# Stage -> (trainable parameters without gamma, multiply-adds), classes as in the layer table.
STAGES = {
    V3: {
        "stem": (172_272, 1_340_779_616),
        "Mixed_5b": (255_440, 312_345_600),
        "Mixed_5c": (276_976, 338_688_000),
        "Mixed_5d": (284_656, 348_096_000),
        "Mixed_6a": (1_152_640, 401_937_408),
        "Mixed_6b": (1_295_872, 374_063_104),
        "Mixed_6c": (1_689_280, 487_702_528),
        "Mixed_6d": (1_689_280, 487_702_528),
        "Mixed_6e": (2_140_032, 617_914_368),
        "Mixed_7a": (1_697_024, 291_004_416),
        "Mixed_7b": (5_041_344, 322_437_120),
        "Mixed_7c": (6_073_536, 388_497_408),
        "AuxLogits": (3_326_569, 5_683_968),
        "Logits": (2_051_049, 2_050_048),
    },
    V4: V4_STAGES,
    V4_PAPER: V4_STAGES,
    RV1: {**RV1_STAGES, "Logits": (1_793_000, 1_792_000)},
    FACENET: {**RV1_STAGES, "C blocks": (9_600_000, 613_416_960)},
    RV2_PAPER: {
        "stem": (604_864, 2_289_943_648),
        "A blocks": (686_640, 837_312_000),
        "Mixed_6a": (2_901_248, 1_482_178_560),
        "B blocks": (11_712_320, 3_379_589_120),
        "Mixed_7a": (3_928_064, 599_629_824),
        "C blocks": (10_439_360, 667_156_480),
        "Logits": (2_145_000, 2_144_000),
    },
    RV2: {
        "stem": (172_272, 1_340_779_616),
        "Mixed_5b": (267_792, 327_398_400),
        "A blocks": (1_229_280, 1_499_008_000),
        "Mixed_6a": (2_663_680, 1_398_185_984),
        "B blocks": (22_522_240, 6_498_754_560),
        "Mixed_7a": (3_878_912, 585_424_896),
        "C blocks": (20_345_600, 1_300_234_240),
        "Conv2d_7b_1x1": (3_196_416, 204_472_320),
        "AuxLogits": (3_367_529, 6_707_968),
        "Logits": (1_538_537, 1_537_536),
    },
}

# Rows and columns of every stage's output, and its channels.
STEM_V3 = {
    "Conv2d_1a_3x3": (149, 32), "Conv2d_2a_3x3": (147, 32), "Conv2d_2b_3x3": (147, 64),
    "MaxPool_3a_3x3": (73, 64), "Conv2d_3b_1x1": (73, 80), "Conv2d_4a_3x3": (71, 192),
}  # fmt: skip
STEM_V4 = {
    "Conv2d_1a_3x3": (149, 32), "Conv2d_2a_3x3": (147, 32), "Conv2d_2b_3x3": (147, 64),
    "Mixed_3a": (73, 160), "Mixed_4a": (71, 192), "Mixed_5a": (35, 384),
}  # fmt: skip


def residual_grids(counts, channels):
    """Of figure 15: counts and channels of the blocks A, B and C."""
    grids, reductions = {}, (None, "Mixed_6a", "Mixed_7a")
    for kind, reduction, grid, count, width in zip((35, 17, 8), reductions, (35, 17, 8), counts,
                                                   channels):  # fmt: skip
        if reduction:
            grids[reduction] = (grid, width)
        grids.update({f"block{kind}_{i}": (grid, width) for i in range(1, count + 1)})
    return grids


GRIDS = {
    V3: {
        **STEM_V3,
        "MaxPool_5a_3x3": (35, 192),
        "Mixed_5b": (35, 256),
        **{f"Mixed_5{letter}": (35, 288) for letter in "cd"},
        **{f"Mixed_6{letter}": (17, 768) for letter in "abcde"},
        "Mixed_7a": (8, 1280),
        **{f"Mixed_7{letter}": (8, 2048) for letter in "bc"},
    },
    V4: {
        **STEM_V4,
        **{f"Mixed_5{letter}": (35, 384) for letter in "bcde"},
        **{f"Mixed_6{letter}": (17, 1024) for letter in "abcdefgh"},
        **{f"Mixed_7{letter}": (8, 1536) for letter in "abcd"},
    },
    RV1: {
        **STEM_V3, "Conv2d_4b_3x3": (35, 256), **residual_grids((5, 10, 5), (256, 896, 1792))
    },
    FACENET: {
        **STEM_V3, "Conv2d_4b_3x3": (35, 256), **residual_grids((5, 10, 6), (256, 896, 1792))
    },
    RV2_PAPER: {**STEM_V4, **residual_grids((5, 10, 5), (384, 1152, 2144))},
    RV2: {
        **STEM_V3,
        "MaxPool_5a_3x3": (35, 192),
        "Mixed_5b": (35, 320),
        **residual_grids((10, 20, 10), (320, 1088, 2080)),
        "Conv2d_7b_1x1": (8, 1536),
    },
}  # fmt: skip
GRIDS[V4_PAPER] = GRIDS[V4]


@pytest.fixture(scope="module", autouse=True)
def zero_weights():
    with zero_initial_weights():
        yield


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def network(request):
    """((name, variant), model with auxiliary head and as many classes as its layer table)."""
    name, variant = request.param
    classes = TABLES[request.param][1] or 1000
    return request.param, CATALOG[name][variant].builder(
        variant=variant, num_classes=classes, aux_head=True
    )


def weighted_layers(model, key):
    """name -> layer of what the network's layer table lists."""
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    if not any(name.startswith("Aux") for name in read_rows(*key)):
        layers = {name: layer for name, layer in layers.items() if "Aux" not in name}
    if TABLES[key][1] is None:
        del layers["Logits"]
    return layers


def size(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def without_gamma(weights):
    return [weight for weight in weights if weight.name != "gamma"]


def multiply_adds(layer):
    grid = () if isinstance(layer, keras.layers.Dense) else layer.output.shape[1:3]
    return math.prod((*layer.kernel.shape, *grid))


def test_every_layer_equals_its_row_of_the_layer_table(network):
    key, model = network
    rows, layers = read_rows(*key), weighted_layers(model, key)
    assert set(layers) == set(rows)
    for name, row in rows.items():
        layer = layers[name]
        assert isinstance(layer, ConvUnit) == row.has_norm, name
        assert size(layer.trainable_weights) == row.num_trainable, name
        assert multiply_adds(layer) == row.num_multiply_adds, name
        if isinstance(layer, keras.layers.Dense):
            assert row.kernel == (1, 1) and layer.activation is keras.activations.linear
            assert tuple(layer.kernel.shape) == (row.channels_in, row.filters), name
            continue
        assert tuple(layer.kernel.shape) == (*row.kernel, row.channels_in, row.filters), name
        assert layer.strides == (row.stride, row.stride), name
        assert layer.output.shape[1:] == (*row.grid, row.filters), name
        assert row.kernel == (1, 1) or layer.padding == row.padding, name  # 1x1 pads nothing
        if row.has_norm:
            assert layer.use_relu == row.has_relu, name
            assert size(layer.non_trainable_weights) == 2 * row.filters, name
        else:
            assert layer.activation is keras.activations.linear and not row.has_relu, name


def test_stages_and_whole_table_have_the_published_costs(network):
    key, model = network
    rows, layers = read_rows(*key), weighted_layers(model, key)
    found = collections.defaultdict(lambda: (0, 0))
    for name, layer in layers.items():
        parameters, operations = found[rows[name].stage]
        found[rows[name].stage] = (
            parameters + size(layer.trainable_weights),
            operations + multiply_adds(layer),
        )
    assert found == STAGES[key]


def test_stages_have_the_grids_and_channels_of_the_figures(network):
    key, model = network
    found = {name: tensor.shape[1:] for name, tensor in endpoints(model).items()}
    assert found == {name: (grid, grid, width) for name, (grid, width) in GRIDS[key].items()}
    assert list(found) == list(GRIDS[key])
    before_heads = {  # what the two heads stand on
        "AvgPool_1a": list(GRIDS[key])[-1],
        "AuxLogits_AvgPool_1a": [name for name, (grid, _) in GRIDS[key].items() if grid == 17][-1],
    }
    for pool, stage in before_heads.items():
        assert model.get_layer(pool).input is model.get_layer(stage).output


def test_variables_are_as_many_as_in_the_released_checkpoints(network):
    key, model = network
    layers = weighted_layers(model, key).values()
    found = tuple(
        sum(len(getattr(layer, kind)) for layer in layers)
        for kind in ("weights", "trainable_weights")
    )
    assert found == NUM_VARIABLES[key]
    if key in CHECKPOINTS:
        assert (size(model.trainable_weights), count_parameters(model)) == CHECKPOINTS[key]
        assert len(model.weights) == NUM_VARIABLES[key][0]


def aux_parameters(channels, *, gamma=0):
    """(trainable, total) of the auxiliary head with 1000 classes."""
    convs = channels * 128 + 5 * 5 * 128 * 768 + (1 + gamma) * (128 + 768)
    trainable = convs + 768 * 1000 + 1000
    return trainable, trainable + 2 * (128 + 768)


@pytest.mark.parametrize("key", NETWORKS, ids="-".join)
def test_totals_of_1000_classes_equal_the_published_ones(key):
    entry = CATALOG[key[0]][key[1]]
    model = entry.builder(variant=key[1], aux_head=True, batch_norm_scale=True)
    plain = keras.Model(model.input, model.output["logits"])
    trunk = keras.Model(model.input, model.get_layer("AvgPool_1a").input)

    def counts(part):
        return size(part.trainable_weights), count_parameters(part)

    def counts_without_gamma(part):
        return size(without_gamma(part.trainable_weights)), size(without_gamma(part.weights))

    units = [layer for layer in plain.layers if isinstance(layer, ConvUnit)]
    biased = [layer for layer in plain.layers if getattr(layer, "bias", None) is not None]
    channels = sum(layer.filters for layer in units)
    assert (len(units), len(biased), channels, count_multiply_adds(plain)) == STRUCTURE[key]
    assert (counts_without_gamma(plain), counts(plain)) == PLAIN[key]
    assert counts_without_gamma(trunk) == WITHOUT_TOP[key]
    width = [width for grid, width in GRIDS[key].values() if grid == 17][-1]
    for gamma, found in enumerate((counts_without_gamma(model), counts(model))):
        head = aux_parameters(width, gamma=gamma)
        assert found == tuple(map(sum, zip(PLAIN[key][gamma], head)))
        assert key not in WITH_AUX or found == WITH_AUX[key][gamma]
    assert (entry.num_trainable, entry.num_parameters) == PLAIN[key][0]
    assert (entry.num_trainable_without_top, entry.num_parameters_without_top) == WITHOUT_TOP[key]
    assert (entry.num_trainable_with_aux, entry.num_parameters_with_aux) == counts_without_gamma(
        model
    )
    assert entry.num_multiply_adds == STRUCTURE[key][3]


def test_paper_blocks_of_inception_resnet_v2_at_the_released_depth():
    model = inception_resnet_v2(variant="paper", block_counts=(10, 20, 10))
    assert count_multiply_adds(model) == 14_142_011_232
    assert (size(model.trainable_weights), count_parameters(model)) == (55_255_816, 55_313_160)
