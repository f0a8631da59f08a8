#!/usr/bin/env python3
"""Plain ResNet-50 (no normalisation, no shortcuts, TReLU) on a GPU with PyTorch.

Times a training step (forward, softmax cross-entropy with label smoothing 0.1, backward, SGD with
Nesterov momentum and clipping by the global norm) of the network that JTReLU calls resnet50 with
V2 blocks and w = 0, eager and compiled, and the bytes of activations it holds. Prints one JSON
object per configuration. Without a GPU it prints why it was skipped and exits with 0.
"""

import argparse
import json
import math
import statistics
import sys

BLOCKS = (3, 4, 6, 3)
SLOPE = 0.4259071946  # TAT, 49 activations, eta = 0.9


def same_padding(size, kernel, stride):
    """Padding before and after, as TensorFlow's SAME defines it."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def build(torch, size, channels, classes):
    """The network as a list of modules; strided convolutions pad explicitly where SAME is uneven."""
    nn = torch.nn
    scale = math.sqrt(2 / (1 + SLOPE**2))

    class TReLU(nn.Module):
        def forward(self, x):
            return nn.functional.leaky_relu(x, SLOPE) * scale

    modules = []

    def convolution(inputs, outputs, kernel, stride, extent):
        before, after = same_padding(extent, kernel, stride)
        if before != after:
            modules.append(nn.ZeroPad2d((before, after, before, after)))
        layer = nn.Conv2d(inputs, outputs, kernel, stride, before if before == after else 0)
        nn.init.orthogonal_(layer.weight, max(1.0, math.sqrt(outputs / (inputs * kernel**2))))
        nn.init.zeros_(layer.bias)
        modules.append(layer)
        return math.ceil(extent / stride)

    extent = convolution(channels, 64, 7, 2, size)
    before, after = same_padding(extent, 3, 2)
    modules.append(nn.ConstantPad2d((before, after, before, after), -math.inf))
    modules.append(nn.MaxPool2d(3, 2))
    extent = math.ceil(extent / 2)
    width_in = 64
    for stage, count in enumerate(BLOCKS):
        width = 64 << stage
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            modules.append(TReLU())
            convolution(width_in, width, 1, 1, extent)
            modules.append(TReLU())
            extent = convolution(width, width, 3, stride, extent)
            modules.append(TReLU())
            convolution(width, 4 * width, 1, 1, extent)
            width_in = 4 * width
    modules += [TReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width_in, classes)]
    return nn.Sequential(*modules)


def measure(torch, arguments, compiled, bf16):
    torch.manual_seed(1)
    device = torch.device("cuda")
    model = build(torch, arguments.size, 4, 1000).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=True
    )
    images = torch.randn(arguments.batch, 4, arguments.size, arguments.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (arguments.batch,), device=device)
    forward = torch.compile(model, mode="max-autotune") if compiled else model

    def loss_of():
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            logits = forward(images)
        return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        return loss

    for _ in range(arguments.warmup):
        loss = step()
    if not math.isfinite(loss.item()):
        raise RuntimeError("the loss is not finite")
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    loss = loss_of()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated() - before
    loss.backward()
    times = []
    for _ in range(arguments.steps):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    median = statistics.median(times)
    return {
        "contender": "pytorch-" + ("compiled" if compiled else "eager") + ("-bf16" if bf16 else ""),
        "network": "resnet50:0",
        "batch": arguments.batch,
        "milliseconds": times,
        "imagesPerSecond": 1000 * arguments.batch / median,
        "activationBytes": held,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--eager-only", action="store_true")
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError:
        print(json.dumps({"skipped": "PyTorch is not installed"}))
        return
    if not torch.cuda.is_available():
        print(json.dumps({"skipped": "PyTorch finds no GPU"}))
        return
    torch.backends.cudnn.benchmark = True
    for bf16 in (True, False):
        for compiled in (False,) if arguments.eager_only else (False, True):
            print(json.dumps(measure(torch, arguments, compiled, bf16)))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
