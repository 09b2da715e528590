"""PyTorch's side of tools/bench_step.py and tools/bench_infer.py: timm's models, on the CPU.

timm has no Inception-ResNet-v1, and no network of another width: those are built from this
project's tables in timm's manner (tools/torch_network.py), and the description says so. All in
channels_last, bfloat16 by autocast. torch.compile compiles the network, in training with its
backward pass; the optimizer is timm's in both.
"""

import numpy as np
import torch

import layer_list
import torch_network
from benched_batch import DROPOUT_RATE, LABEL_SMOOTHING, LEARNING_RATE, images_of, labels_of
from peer_processes import TORCH_COMPILE, TRAIN

with torch_network.torchvision_or_stub():
    import timm
    import timm.optim

TIMM_NETWORKS = ("inception_v3", "inception_v4", "inception_resnet_v2")


def build_peer(peer, case, folder):
    """(function that makes one call and returns a loss or logit, what the network is)."""
    torch.set_num_threads(case.threads)
    network, description = build_network(case, folder)
    # NHWC in memory, as channels_last is: no copy.
    images = torch.from_numpy(images_of(case)).permute(0, 3, 1, 2)
    network = network.to(memory_format=torch.channels_last)
    called = network
    if peer == TORCH_COMPILE:
        called, description = torch.compile(network), f"{description}, compiled"
    autocast = torch.autocast(
        "cpu", dtype=torch.bfloat16, enabled=case.precision == "mixed_bfloat16"
    )
    if case.task == TRAIN:
        labels = torch.from_numpy(labels_of(case).astype(np.int64))
        return _training_step(network, called, images, labels, autocast), description
    network.train(False)

    def infer():
        with torch.inference_mode(), autocast:
            return float(called(images)[0, 0])

    return infer, description


def build_network(case, folder):
    """(module in training mode with drawn weights, what it is)."""
    if case.is_full_width and case.network in TIMM_NETWORKS:
        network = timm.create_model(
            case.network, num_classes=case.num_classes, drop_rate=DROPOUT_RATE
        )
        return network.train(), f"timm {case.network}"
    layers = layer_list.read_layers(folder / layer_list.FILE_NAME)
    return torch_network.ListedNetwork(layers).train(), f"{case.network} from our tables in torch"


def _training_step(network, called, images, labels, autocast):
    optimizer = timm.optim.RMSpropTF(
        network.parameters(), lr=LEARNING_RATE, alpha=0.9, momentum=0.9, eps=1.0
    )

    def step():
        optimizer.zero_grad()
        with autocast:
            logits = called(images)
            loss = torch.nn.functional.cross_entropy(
                logits, labels, label_smoothing=LABEL_SMOOTHING
            )
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
