"""The networks of the benchmarks' peers compute ours: same weights, logits and statistics."""

import importlib.util
import sys

import keras
import numpy as np
import pytest

from inception_tf.models.catalog import CATALOG, ModelSpec, build_model
from inception_tf.models.weights.assignment import assign_weights, read_weights
from inception_tf.models.weights.identity import identity_of_spec
from tests.test_docs import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tools"))
import layer_list  # noqa: E402
import stock_network  # noqa: E402

sys.path.pop(0)

NETWORKS = [
    "inception_resnet_v1",
    "inception_v3",
    pytest.param("inception_v4", marks=pytest.mark.slow),
    pytest.param("inception_resnet_v2", marks=pytest.mark.slow),
]
SIZE_PX = 107
STATISTICS = ("moving_mean", "moving_variance")


def our_network(network, **fields):
    """A narrow network without dropout whose every weight and statistic is drawn.

    Kernels keep the size of what passes them, so that images differ at the end.
    """
    spec = ModelSpec(
        name=network, variant=next(reversed(CATALOG[network])), width_multiplier=0.1,
        dropout_rate=0.0, input_height_px=SIZE_PX, input_width_px=SIZE_PX,
        batch_norm_decay=0.7, **fields,
    )  # fmt: skip
    model = build_model(spec, num_classes=7)
    generator = np.random.default_rng(3)
    for variable in model.weights:
        low, high = -0.1, 0.1
        if variable.path.endswith("variance"):
            low, high = 0.5, 1.5
        elif variable.ndim > 1:
            high = np.sqrt(6.0 / np.prod(variable.shape[:-1]))
            low = -high
        variable.assign(generator.uniform(low, high, variable.shape))
    return model


def images_of(count):
    """float32 [count, SIZE_PX, SIZE_PX, 3] in [-1, 1]: noise, from dark to bright."""
    noise = np.random.default_rng(4).uniform(-0.3, 0.3, (count, SIZE_PX, SIZE_PX, 3))
    return (noise + np.linspace(-0.7, 0.7, count)[:, None, None, None]).astype(np.float32)


# Of the largest value. In training each batch norm divides by the deviation of its own batch, which
# magnifies the rounding of all before it.
INFERENCE, TRAINING = 1e-4, 2e-2


def assert_close(found, wanted, share):
    """Within a share of the largest value."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    # Two images have outputs of their own: more than biases is compared.
    assert np.abs(wanted[0] - wanted[1]).max() > 0.01 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=share * np.abs(wanted).max())


def layers_from_file(model, tmp_path):
    """Its list of layers as a peer reads it."""
    path = tmp_path / layer_list.FILE_NAME
    layer_list.write_layers(path, model)
    return layer_list.read_layers(path)


def units_of(model):
    return [layer for layer in model.layers if type(layer).__name__ == "ConvUnit"]


def copy_to_stock(ours, stock):
    """Gives Keras' layers our weights, by name."""
    for layer in ours.layers:
        if type(layer).__name__ == "ConvUnit":
            stock.get_layer(layer.name).kernel.assign(layer.kernel)
            norm = stock.get_layer(f"{layer.name}_norm")
            for name in ("beta", *STATISTICS):
                getattr(norm, name).assign(getattr(layer, name))
        elif layer.weights:
            stock.get_layer(layer.name).set_weights(layer.get_weights())


@pytest.mark.parametrize("network", NETWORKS)
def test_keras_own_layers_compute_our_network(network, tmp_path):
    ours = our_network(network)
    stock = stock_network.build_stock_network(layers_from_file(ours, tmp_path))
    assert {type(layer).__module__.partition(".")[0] for layer in stock.layers} == {"keras"}
    assert stock.count_params() == ours.count_params()
    copy_to_stock(ours, stock)
    images = images_of(4)
    assert_close(stock(images, training=False), ours(images, training=False), INFERENCE)
    assert_close(stock(images, training=True), ours(images, training=True), TRAINING)
    for layer in units_of(ours):
        mean = np.asarray(layer.moving_mean)
        stored = np.asarray(stock.get_layer(f"{layer.name}_norm").moving_mean)
        np.testing.assert_allclose(stored, mean, rtol=0, atol=TRAINING * np.abs(mean).max())


def test_keras_own_layers_keep_the_precision():
    ours = our_network("inception_resnet_v1", precision="mixed_bfloat16")
    stock = stock_network.build_stock_network(layer_list.layers_of(ours))
    found = {layer.name: layer.compute_dtype for layer in stock.layers}
    for layer in units_of(ours):
        for part in ("norm", "relu"):
            assert found[f"{layer.name}_{part}"] == "bfloat16"
    for layer in ours.layers[1:]:
        name = f"{layer.name}_sum" if type(layer).__name__ == "ResidualSum" else layer.name
        assert found[name] == layer.compute_dtype, name
    assert "bfloat16" in found.values()
    assert found["Logits"] == found["AvgPool_1a"] == "float32"


def test_a_layer_that_no_peer_has_is_refused():
    layers = layer_list.layers_of(our_network("inception_resnet_v1", batch_norm_on_sums=True))
    with pytest.raises(ValueError, match="SumNorm block35_1"):
        stock_network.build_stock_network(layers)


@pytest.fixture(scope="module")
def torch_network():
    """tools/torch_network.py; skips where torch is not installed."""
    pytest.importorskip("torch", reason="needs torch")
    sys.path.insert(0, str(CHECKOUT / "tools"))
    import torch_network as module

    sys.path.pop(0)
    return module


def copy_to_torch(ours, theirs):
    """Gives the modules our weights, by name; PyTorch's kernels are [out, in, height, width]."""
    import torch

    def assign(parameter, value):
        value = np.asarray(value)
        turned = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(value.transpose(turned))))

    for layer in ours.layers:
        if not layer.weights:
            continue
        module = theirs.layers[layer.name]
        if type(layer).__name__ == "ConvUnit":
            conv, norm = module[0], module[1]
            assign(conv.weight, layer.kernel)
            for name, own in (("bias", "beta"), ("running_mean", "moving_mean"),
                              ("running_var", "moving_variance")):  # fmt: skip
                assign(getattr(norm, name), getattr(layer, own))
        else:
            assign(module.weight, layer.kernel)
            assign(module.bias, layer.bias)


@pytest.mark.parametrize("network", NETWORKS)
def test_torch_computes_our_network_from_its_layers(network, torch_network, tmp_path):
    import torch

    ours = our_network(network)
    theirs = torch_network.ListedNetwork(layers_from_file(ours, tmp_path))
    copy_to_torch(ours, theirs)
    num_gammas = sum(layer.filters for layer in units_of(ours))
    num_trained = sum(parameter.numel() for parameter in theirs.parameters())
    own_trained = sum(int(np.prod(v.shape)) for v in ours.trainable_variables)
    assert num_trained == own_trained + num_gammas
    images = images_of(4)
    turned = torch.from_numpy(images).permute(0, 3, 1, 2)
    theirs = theirs.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert_close(theirs.eval()(turned).numpy(), ours(images, training=False), INFERENCE)
        assert_close(theirs.train()(turned).numpy(), ours(images, training=True), TRAINING)
    for layer in units_of(ours):
        norm = theirs.layers[layer.name][1]
        for theirs_name, name in zip(("running_mean", "running_var"), STATISTICS):
            wanted = np.asarray(getattr(layer, name))
            found = getattr(norm, theirs_name).numpy()
            limit = TRAINING * np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)


def test_a_padding_that_torch_has_not_is_refused(torch_network):
    images = keras.Input((9, 9, 3), name="images")
    output = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="pool")(images)
    with pytest.raises(ValueError, match="'same' of pool"):
        torch_network.ListedNetwork(layer_list.layers_of(keras.Model(images, output)))


@pytest.fixture(scope="module")
def timm(torch_network):
    """timm; skips where it is not installed."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    has_torchvision = importlib.util.find_spec("torchvision") is not None
    with torch_network.torchvision_or_stub():
        import timm as module
    # The stub leaves nothing behind.
    assert (importlib.util.find_spec("torchvision") is not None) == has_torchvision
    assert has_torchvision or "torchvision" not in sys.modules
    return module


@pytest.mark.slow
@pytest.mark.parametrize("network", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_timm_has_our_network(network, timm, tmp_path):
    """Its own weights, imported by name, give its own logits; and it trains gammas besides."""
    import torch
    from safetensors.torch import save_file

    theirs = timm.create_model(network).eval()
    entry = CATALOG[network]["released"]
    norms = [one for one in theirs.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    num_gammas = sum(norm.num_features for norm in norms)
    num_trained = sum(parameter.numel() for parameter in theirs.parameters())
    assert num_trained == entry.num_trainable + num_gammas
    if network == "inception_v3":
        return  # its average pools count the padded zeros: a fact of tests/models
    generator = torch.Generator().manual_seed(5)
    for name, value in theirs.state_dict().items():
        if value.is_floating_point():
            low, high = (0.5, 1.5) if name.endswith(("running_var", "bn.weight")) else (-0.1, 0.1)
            if value.ndim > 1:
                high = (6.0 / value[0].numel()) ** 0.5
                low = -high
            value.uniform_(low, high, generator=generator)
    path = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), str(path), metadata={"format": "pt"})
    spec = ModelSpec(
        name=network, input_height_px=SIZE_PX, input_width_px=SIZE_PX, batch_norm_scale=True
    )
    ours = build_model(spec, num_classes=1000)
    identity = identity_of_spec(spec, num_classes=1000, evaluation_crop=None)
    assign_weights(ours, read_weights(str(path)), identity=identity)
    images = images_of(2)
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert_close(ours(images, training=False), wanted, INFERENCE)
