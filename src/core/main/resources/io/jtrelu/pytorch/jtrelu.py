"""A network of JTReLU in PyTorch.

    import torch, jtrelu

    network = jtrelu.load("model.safetensors")
    x = network.normalize(images)              # uint8 [n, h, w, c] -> float [n, c + 1, h, w]
    probabilities = torch.softmax(network(x), 1)
    print(network.classes[probabilities[0].argmax()])

The network is built of the description that the file holds, its parameters are loaded strictly:
each must be there, and nothing else. Nothing but torch is needed.
"""

import json
import math
import struct

import torch
from torch import nn
from torch.nn import functional as F


def _bent_identity(x):
    return (torch.sqrt(x * x + 1) - 1) / 2 + x


def _gelu(x):
    return F.gelu(x, approximate="tanh")


# Each is between affine maps in the network: scale * (f(input_scale * x + input_shift) + shift).
FUNCTIONS = {
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "relu": F.relu,
    "selu": F.selu,
    "elu": F.elu,
    "swish": F.silu,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "bentid": _bent_identity,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "square": torch.square,
    "softsign": F.softsign,
    "gelu": _gelu,
    "gelu_exact": F.gelu,
}


class Network(nn.Module):
    """The layers of a description, on images [n, channels, height, width].

    A classifier gives its logits, [n, classes]; a network with several outputs a list of them.
    """

    def __init__(self, model, rename=None):
        super().__init__()
        description = model["network"]
        self.name = description["name"]
        self.classes = model["classes"]
        self.image = model["image"]
        self.layers = description["layers"]
        self.outputs = description["outputs"]
        self.modules_by_layer = {}  # a plain dict: the modules are registered under their names
        sizes = {}
        for layer in self.layers:
            name, attributes = layer["name"], layer["attributes"]
            size = sizes[layer["sources"][0]] if layer.get("sources") else None
            sizes[name] = size
            kind = layer["kind"]
            if kind == "input":
                sizes[name] = (
                    attributes["channels"], attributes["height"], attributes["width"])
            elif kind == "convolution":
                module, sizes[name] = _convolution(size, attributes)
                self.modules_by_layer[name] = module
                _register(self, rename(name) if rename else name, module)
            elif kind == "max-pooling":
                sizes[name] = (size[0],) + tuple(
                    (n + sum(attributes["padding"]) - attributes["kernel"])
                    // attributes["stride"] + 1
                    for n in size[1:])
            elif kind == "global-mean-pooling":
                sizes[name] = (size[0], 1, 1)

    def forward(self, x):
        values = {}
        for layer in self.layers:
            sources = [values[s] for s in layer.get("sources", ())]
            values[layer["name"]] = self._layer(layer, sources) if sources else x
        results = [values[name] for name in self.outputs]
        if len(results) > 1:
            return results
        return results[0].flatten(1) if results[0].shape[2:] == (1, 1) else results[0]

    def _layer(self, layer, sources):
        kind, a, x = layer["kind"], layer["attributes"], sources[0]
        if kind == "convolution":
            module = self.modules_by_layer[layer["name"]]
            if isinstance(module, nn.Linear):
                return module(x.flatten(1))[:, :, None, None]
            top, left, bottom, right = a["padding"]
            if module.padding == (0, 0) and any(a["padding"]):  # not the same on both sides
                x = F.pad(x, (left, right, top, bottom))
            return module(x)
        if kind == "activation":
            x = x if a["inputScale"] == 1 else a["inputScale"] * x
            x = x if a["inputShift"] == 0 else x + a["inputShift"]
            if a["function"] == "leaky_relu":
                x = F.leaky_relu(x, a["negativeSlope"])
            else:
                x = FUNCTIONS[a["function"]](x)
            x = x if a["outputShift"] == 0 else x + a["outputShift"]
            return x if a["outputScale"] == 1 else a["outputScale"] * x
        if kind == "normalized-sum":
            w = a["shortcutWeight"]
            return w * x + math.sqrt(1 - w * w) * sources[1]
        if kind == "max-pooling":
            begin, end = a["padding"]
            x = F.pad(x, (begin, end, begin, end), value=-math.inf)
            return F.max_pool2d(x, a["kernel"], a["stride"])
        if kind == "global-mean-pooling":
            return x.mean((2, 3), keepdim=True)
        if kind == "dropout":
            return F.dropout(x, a["rate"], self.training)
        raise ValueError(f"layer {layer['name']}: there is no kind of layer named {kind}")

    def normalize(self, images):
        """What the network reads, of bytes [n, height, width, channels] as image files hold them.

        Standardised per channel; then a channel is appended and every location divided by its root
        mean square (Martens et al., arXiv 2110.01765, per-location normalisation), unless the model
        was made without.
        """
        v = images.double() / 255
        x = (v - v.new_tensor(self.image["mean"])) / v.new_tensor(self.image["std"])
        if self.image["homogeneous"] == "NONE":
            return x.float().permute(0, 3, 1, 2).contiguous()
        if self.image["homogeneous"] == "NONE":  # of a network that was not made for the rest
            return x.float().permute(0, 3, 1, 2).contiguous()
        if self.image["homogeneous"] == "ONE":
            last = torch.ones_like(x[..., :1])
        else:
            last = x.square().mean((1, 2, 3), keepdim=True).sqrt()
            last = torch.where(last == 0, torch.ones_like(last), last)
            last = last.expand(*x.shape[:3], 1)
        x = torch.cat([x, last], 3)
        x = x / x.square().mean(3, keepdim=True).sqrt()
        return x.float().permute(0, 3, 1, 2).contiguous()


def _convolution(size, a):
    """The module of a convolution, and the size of its result."""
    top, left, bottom, right = a["padding"]
    kernel, stride, dilation = a["kernel"], a["stride"], a["dilation"]
    if (size[1:], kernel, stride, dilation) == ((1, 1), [1, 1], [1, 1], [1, 1]) and not (
            any(a["padding"]) or a["groups"] > 1):
        return nn.Linear(size[0], a["channels"]), (a["channels"], 1, 1)
    same = top == bottom and left == right
    module = nn.Conv2d(
        size[0], a["channels"], kernel, stride, (top, left) if same else 0, dilation, a["groups"])
    height, width = (
        (n + pad - d * (k - 1) - 1) // s + 1
        for n, pad, k, s, d in zip(
            size[1:], (top + bottom, left + right), kernel, stride, dilation))
    return module, (a["channels"], height, width)


def _register(parent, name, module):
    """Puts a module where its dotted name says, whatever else its parts may be names of."""
    *path, last = name.split(".")
    for part in path:
        parent = parent._modules.setdefault(part, nn.Module())
    if last in parent._modules:  # made for a longer name before
        module._modules.update(parent._modules[last]._modules)
    parent._modules[last] = module


_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read(path):
    """Tensors by name, and metadata, of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = bytearray(data[8 + size + begin:8 + size + end])
        tensors[name] = torch.frombuffer(raw, dtype=_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def load(path="model.safetensors"):
    """The network of a file, with its parameters, ready to classify (in evaluation mode)."""
    tensors, metadata = read(path)
    if "jtrelu.model" not in metadata:
        raise ValueError(f"{path} holds no description of a network; was it written by JTReLU?")
    names = json.loads(metadata.get("jtrelu.names", "{}"))  # of layers that have others here
    network = Network(json.loads(metadata["jtrelu.model"]), lambda layer: names.get(layer, layer))
    network.load_state_dict(tensors, strict=True)
    return network.eval()
