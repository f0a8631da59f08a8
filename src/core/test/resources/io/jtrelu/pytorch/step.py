"""For each folder: logits and the gradients of a training step in PyTorch, as raw floats."""

import importlib.util
import pathlib
import struct
import sys

import torch


def floats(path, *shape):
    return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32).reshape(*shape)


def write(path, tensors):
    values = torch.cat([t.detach().reshape(-1) for t in tensors]).tolist()
    path.write_bytes(struct.pack(f"<{len(values)}f", *values))


torch.set_num_threads(1)
for folder in map(pathlib.Path, sys.argv[1:]):
    spec = importlib.util.spec_from_file_location("jtrelu", folder / "jtrelu.py")
    jtrelu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(jtrelu)
    network = jtrelu.load(folder / "model.safetensors")
    shape = dict(network.layers[0]["attributes"])
    h, w, c = shape["height"], shape["width"], shape["channels"]
    images = floats(folder / "images", -1, h, w, c).permute(0, 3, 1, 2)
    logits = network(images)
    labels = torch.arange(len(images)) % logits.shape[1]
    torch.nn.functional.cross_entropy(logits, labels).backward()
    parameters = dict(network.named_parameters())
    names = (folder / "names").read_text().split()
    assert sorted(names) == sorted(parameters), (names, sorted(parameters))
    write(folder / "logits", [logits])
    write(folder / "gradients", [parameters[name].grad for name in names])
    raw = torch.frombuffer(bytearray((folder / "bytes").read_bytes()), dtype=torch.uint8)
    write(folder / "normalized", [network.normalize(raw.reshape(-1, h, w, network.image["channels"]))])
