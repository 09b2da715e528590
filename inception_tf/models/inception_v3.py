"""Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567), with the released widths, and its ladder.

    table 1              stages
    rows 1 to 7          Conv2d_1a_3x3 ... MaxPool_5a_3x3
    3 x figure 5         Mixed_5b 5c 5d      35x35
    reduction            Mixed_6a            17x17
    4 x figure 6         Mixed_6b ... 6e     with the auxiliary head on the last
    reduction            Mixed_7a            8x8
    2 x figure 7         Mixed_7b 7c

The paper leaves the widths to a file `model.txt` that is not to be had. Every published
Inception-v3 has those of the authors' code, which are meant wherever the paper gives none.

Grids in the comments are height x width x channels for a 299x299 input.
"""

from inception_tf.models.arguments import check_choice
from inception_tf.models.blocks import AveragePool, Conv, MaxPool, Mixed, Siblings
from inception_tf.models.heads import HeadStyle
from inception_tf.models.initializers import slim_variance_scaling, truncated_normal
from inception_tf.models.layers import SAME
from inception_tf.models.layers import VALID as V
from inception_tf.models.network import build_network
from inception_tf.models.stems import stem_for_resolution

# Table 1 as released. Its rows 5 to 7 print 3x3 80, 3x3/2 192 and 3x3 288: see `table_1` below.
STEM = (
    Conv("3x3", 32, 2, V, tag="1a"),  # 149x149x32
    Conv("3x3", 32, 1, V, tag="2a"),  # 147x147x32
    Conv("3x3", 64, tag="2b"),  # 147x147x64
    MaxPool("3a"),  # 73x73x64
    Conv("1x1", 80, 1, V, tag="3b"),  # 73x73x80
    Conv("3x3", 192, 1, V, tag="4a"),  # 71x71x192
    MaxPool("5a"),  # 35x35x192
)

STEMS = {
    "factorised": STEM,
    # Before the step "Factorized 7x7" of table 3: one 7x7 in place of three 3x3. Reconstruction:
    # with stride 2 and VALID it leaves the 147x147x64 that the three leave.
    "7x7": (Conv("7x7", 64, 2, V, tag="1a"), *STEM[3:]),
    # Rows 1 to 7 of table 1 to the letter, row 7 padded (else 33x33 would be left, not 35x35).
    "table_1": (
        *STEM[:4],
        Conv("3x3", 80, 1, V, tag="3b"),  # 71x71x80
        Conv("3x3", 192, 2, V, tag="4a"),  # 35x35x192
        Conv("3x3", 288, 1, SAME, tag="4b"),  # 35x35x288
    ),
}


def module_35(name, pool_filters, branch_5x5):
    """Figure 4 or 5 on the 35x35 grid: the second branch has the 5x5, or two 3x3 in its place."""
    return Mixed(
        name,
        (
            (Conv("1x1", 64),),
            branch_5x5,
            (Conv("1x1", 64), Conv("3x3", 96, is_inner=True), Conv("3x3", 96)),
            (AveragePool(), Conv("1x1", pool_filters)),
        ),
    )


BRANCHES_5X5 = {
    "5x5": (Conv("1x1", 48), Conv("5x5", 64)),
    # Figure 5's replacement. Reconstruction: as many filters in between as at the end.
    "3x3_3x3": (Conv("1x1", 48), Conv("3x3", 64, is_inner=True), Conv("3x3", 64)),
}
# Mixed_5c of the released code names its 5x5 branch in its own way.
BRANCH_5X5_OF_5C = (
    Conv("1x1", 48, tag="0b"),
    Conv("5x5", 64, released_scope="Conv_1_0c_5x5"),
)


def module_17(name, filters):
    """Figure 6 with n = 7: the 7x7 and two 7x7 as 1x7 and 7x1."""
    return Mixed(
        name,
        (
            (Conv("1x1", 192),),
            (Conv("1x1", filters), Conv("1x7", filters, is_inner=True), Conv("7x1", 192)),
            (
                Conv("1x1", filters),
                Conv("7x1", filters, is_inner=True),
                Conv("1x7", filters),
                Conv("7x1", filters, is_inner=True),
                Conv("1x7", 192),
            ),
            (AveragePool(), Conv("1x1", 192)),
        ),
    )


def module_8(name, siblings):
    """Figure 7, the expanded filter bank of the coarsest grid."""
    return Mixed(
        name,
        (
            (Conv("1x1", 320),),
            (Conv("1x1", 384), siblings),
            (
                Conv("1x1", 448),
                Conv("3x3", 384),
                Siblings((Conv("1x3", 384), Conv("3x1", 384))),
            ),
            (AveragePool(), Conv("1x1", 192)),
        ),
    )


# Figure 10 (two stride-2 convolution branches and a stride-2 pool). The released code calls its
# stride-2 3x3 convolutions here Conv2d_1a_1x1.
REDUCTION_35 = Mixed(
    "Mixed_6a",
    (
        (Conv("3x3", 384, 2, V, released_scope="Conv2d_1a_1x1"),),
        (
            Conv("1x1", 64),
            Conv("3x3", 96, is_inner=True),
            Conv("3x3", 96, 2, V, released_scope="Conv2d_1a_1x1"),
        ),
        (MaxPool(),),
    ),
)  # 17x17x768

MODULES_17 = (
    module_17("Mixed_6b", 128),
    module_17("Mixed_6c", 160),
    module_17("Mixed_6d", 160),
    module_17("Mixed_6e", 192),
)  # 17x17x768 each

REDUCTION_17 = Mixed(
    "Mixed_7a",
    (
        (Conv("1x1", 192), Conv("3x3", 320, 2, V)),
        (
            Conv("1x1", 192),
            Conv("1x7", 192, is_inner=True),
            Conv("7x1", 192),
            Conv("3x3", 192, 2, V),
        ),
        (MaxPool(),),
    ),
)  # 8x8x1280

MODULES_8 = (
    # Both siblings of the released Mixed_7b are numbered 0b.
    module_8("Mixed_7b", Siblings((Conv("1x3", 384, tag="0b"), Conv("3x1", 384, tag="0b")))),
    module_8("Mixed_7c", Siblings((Conv("1x3", 384), Conv("3x1", 384)))),
)  # 8x8x2048 each

FACTORISATIONS = {"relu": False, "linear": True}
AUX_NORMS = {"all": True, "convolutions": False}


def _head_style(aux_norm):
    check_choice(aux_norm, AUX_NORMS, what="aux_norm")
    return HeadStyle(
        logits_initializer=slim_variance_scaling,  # a 1x1 convolution in the released code
        aux_dense_initializer=truncated_normal(0.01),
        aux_logits_initializer=truncated_normal(0.001),
        has_aux_dense_norm=AUX_NORMS[aux_norm],
    )


def inception_v3_stages(
    *, stem="factorised", first_stride=2, first_pool=True, branch_5x5="5x5"
):
    """(stages up to the auxiliary head's grid, stages after it); see `inception_v3`."""
    check_choice(stem, STEMS, what="stem")
    check_choice(branch_5x5, BRANCHES_5X5, what="branch_5x5")
    branch = BRANCHES_5X5[branch_5x5]
    branch_of_5c = BRANCH_5X5_OF_5C if branch_5x5 == "5x5" else branch
    to_aux_head = (
        *stem_for_resolution(
            STEMS[stem], first_stride=first_stride, first_pool=first_pool
        ),
        module_35("Mixed_5b", 32, branch),  # 35x35x256
        module_35("Mixed_5c", 64, branch_of_5c),  # 35x35x288
        module_35("Mixed_5d", 64, branch),  # 35x35x288
        REDUCTION_35,
        *MODULES_17,
    )
    return to_aux_head, (REDUCTION_17, *MODULES_8)


def inception_v3(
    *, variant="released", num_classes=1000, input_shape=(299, 299, 3), include_top=True,
    pooling=None, width_multiplier=1.0, stem="factorised", first_stride=2, first_pool=True,
    branch_5x5="5x5", factorisation="relu", dropout_rate=0.2, aux_head=False, aux_norm="all",
    batch_norm_momentum=0.9997, batch_norm_epsilon=0.001, batch_norm_scale=False, seed=0,
    dtype=None, name="inception_v3",
):  # fmt: skip
    """Inception-v3 as a functional `keras.Model` that returns logits.

    The defaults are the released network. `stem`, `branch_5x5`, `factorisation` and `aux_norm` go
    back down the ladder of arXiv 1512.00567 table 3; `first_stride` and `first_pool` give the
    three receptive fields of its section 9.

    Args:
      variant: 'released', the only one: the paper gives no widths of its own.
      num_classes: K, a background class included where there is one.
      input_shape: (H, W, C) with H and W large enough to leave something of the last grid (75 px
        with the defaults), either of them None where it is free; None for RGB images of any size.
        The input is float [N, H, W, C], images scaled to [-1, 1].
      include_top: end with dropout and logits; else with the last grid.
      pooling: without top: None for the grid [N, h, w, C'], 'avg' or 'max' for float32 [N, C'].
      width_multiplier: ratio applied to every filter count, see `StageBuilder`.
      stem: 'factorised' (released), '7x7' (before "Factorized 7x7"; reconstruction) or 'table_1'
        (the paper's rows to the letter).
      first_stride: of the first convolution: 2 for 299 px, 1 for 151 and 79 px.
      first_pool: keep the first max pool; False for 79 px.
      branch_5x5: '5x5' (released) or '3x3_3x3' (figure 5; widths are a reconstruction).
      factorisation: 'relu' or 'linear' inside what replaces a larger convolution (figure 2).
      dropout_rate: share of the pooled features dropped while training, in [0, 1).
      aux_head: add the auxiliary head on Mixed_6e; needs a fixed input size.
      aux_norm: batch norm in the auxiliary head on 'all' its hidden layers (released) or on the
        'convolutions' alone, its fully connected layer having a bias.
      batch_norm_momentum: share of the old moving statistics kept at an update.
      batch_norm_epsilon: added to the variance.
      batch_norm_scale: learn batch norm's gamma; the released network has none.
      seed: initial weights are a pure function of (seed, layer name).
      dtype: policy such as 'mixed_bfloat16', or None for Keras' global one; logits stay float32.
      name: of the model.

    Returns:
      `keras.Model` with output float32 [N, K], or {'logits', 'aux_logits'} with `aux_head`.

    Raises:
      ConfigError: an argument out of range.
    """
    check_choice(variant, ("released",), what="variant")
    check_choice(factorisation, FACTORISATIONS, what="factorisation")
    return build_network(
        inception_v3_stages(
            stem=stem, first_stride=first_stride, first_pool=first_pool, branch_5x5=branch_5x5
        ),
        num_classes=num_classes, input_shape=input_shape, include_top=include_top, pooling=pooling,
        width_multiplier=width_multiplier, dropout_rate=dropout_rate, aux_head=aux_head,
        batch_norm_momentum=batch_norm_momentum, batch_norm_epsilon=batch_norm_epsilon,
        batch_norm_scale=batch_norm_scale, seed=seed, dtype=dtype, name=name,
        conv_initializer=slim_variance_scaling, head_style=_head_style(aux_norm),
        is_linear_inside=FACTORISATIONS[factorisation],
    )  # fmt: skip
