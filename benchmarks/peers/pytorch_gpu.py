#!/usr/bin/env python3
"""PyTorch's side of a benchmark on a GPU: one request as JSON in, one answer as JSON out.

    {"work": "forward", "contender": "pytorch-eager-bf16", "shape": [n, h, w, ic, oc, ...], ...}
    {"values": [milliseconds, ...], "checks": [[value, scale], ...]}   or   {"skipped": "why"}

The other side is GpuWork.java: same works, same formula for the data, same way of timing, so that
checks (a norm and a projection of each result, or the loss) can be compared. Works:

    forward, backward_data, backward_weights   convolution + bias + TReLU, its gradients; the data
                                               gradient includes the derivative of the TReLU that
                                               made the source, the weight gradient that of the bias
    rectify_forward, rectify_backward          TReLU alone
    orthogonal                                 torch.nn.init.orthogonal_ on the GPU
    step                                       training step of plain ResNet-50 (no normalisation, no
                                               shortcuts): forward, cross-entropy with label
                                               smoothing 0.1, backward, clipping by the global norm,
                                               SGD with Nesterov momentum
    activation_bytes                           what its forward pass holds

"eager" or "compiled" (torch.compile, max-autotune) in the contender's name; channels_last; bf16 by
autocast for the step, by storage for single operations. With 0 iterations only the checks are
computed, which a "device": "cpu" in the request can do too.
"""

import json
import math
import sys
import time

BLOCKS = (3, 4, 6, 3)
CLASSES = 1000
CHANNELS = 4
SIZE = 224
MASK = 0xFFFFFFFF


def hashed(torch, count, seed, device):
    """An integer hash of 0, 1, ..., the same as GpuWork's."""
    x = (torch.arange(count, dtype=torch.int64, device=device) + seed * 0x9E3779B9) & MASK
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def pattern(torch, shape, seed, deviation, device):
    """Uniform numbers of mean 0."""
    count = math.prod(shape)
    uniform = hashed(torch, count, seed, device).double() / 2**32 - 0.5
    return (uniform * math.sqrt(12) * deviation).float().reshape(shape)


def nhwc(torch, shape, seed, deviation, device):
    """NHWC (or KRSC) numbers as PyTorch's NCHW (OIHW) in channels_last."""
    return pattern(torch, shape, seed, deviation, device).permute(0, 3, 1, 2)


class Work:
    def __init__(self, torch, request):
        self.torch = torch
        self.request = request
        self.device = torch.device(request.get("device", "cuda"))
        if self.device.type != "cuda" and request["iterations"] > 0:
            raise ValueError("only a GPU is timed")
        self.bf16 = request["contender"].endswith("bf16")
        self.type = torch.bfloat16 if self.bf16 else torch.float32
        self.compiled = "compiled" in request["contender"]
        self.slope = request["slope"]
        self.scale = math.sqrt(2 / (1 + self.slope**2))
        self.answer = {"checks": []}

    def synchronize(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def compile(self, function):
        return self.torch.compile(function, mode="max-autotune") if self.compiled else function

    def check(self, result):
        """Norm, and projection on random signs, in this library's order of elements."""
        if result.dim() == 4:
            result = result.permute(0, 2, 3, 1)
        values = result.detach().double().reshape(-1)
        signs = hashed(self.torch, values.numel(), 99, self.device)
        norm = values.norm().item()
        projection = self.torch.where(signs < 2**31, values, -values).sum().item()
        self.answer["checks"] += [[norm, norm], [projection, norm]]

    def time(self, call):
        iterations = self.request["iterations"]
        values = self.answer["values"] = []
        for _ in range(self.request["warmup"] if iterations else 0):
            call()
        self.synchronize()
        calls = 1
        for i in range(-3 if iterations else 0, iterations):  # three set the number of calls
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            self.synchronize()
            milliseconds = 1000 * (time.perf_counter() - begin)
            if i >= 0:
                values.append(milliseconds / calls)
            else:
                calls = int(min(max(calls * 1000 * self.request["seconds"] / milliseconds, 1), 1e4))

    def trelu(self, x):
        return self.torch.nn.functional.leaky_relu(x, self.slope) * self.scale

    def derivative(self, x):
        one = self.torch.full((), self.scale, dtype=x.dtype, device=x.device)
        return self.torch.where(x > 0, one, one * self.slope)

    def convolution(self):
        torch = self.torch
        n, h, w, ic, oc, kh, kw, sh, sw, top, left, bottom, right = self.request["shape"]
        deviation = math.sqrt(1 / (ic * kh * kw))
        src = nhwc(torch, (n, h, w, ic), 1, 1, self.device).to(self.type)
        weights = nhwc(torch, (oc, kh, kw, ic), 2, deviation, self.device).to(self.type)
        bias = pattern(torch, (oc,), 3, 0.1, self.device).to(self.type)
        even = top == bottom and left == right
        padding = (top, left) if even else (0, 0)
        source = src if even else torch.nn.functional.pad(src, (left, right, top, bottom))
        oh = (h + top + bottom - kh) // sh + 1
        ow = (w + left + right - kw) // sw + 1
        if self.request["work"] == "forward":

            def call():
                x = source if even else torch.nn.functional.pad(src, (left, right, top, bottom))
                return self.trelu(
                    torch.nn.functional.conv2d(x, weights, bias, (sh, sw), padding)
                )

            call = self.compile(call)
            self.check(call())
            self.time(call)
            return
        diff_dst = nhwc(torch, (n, oh, ow, oc), 4, 1, self.device).to(self.type)
        data = self.request["work"] == "backward_data"

        def backward():
            gradients = torch.ops.aten.convolution_backward(
                diff_dst,
                source,
                weights,
                [oc],
                [sh, sw],
                list(padding),
                [1, 1],
                False,
                [0, 0],
                1,
                [data, not data, not data],
            )
            if not data:
                return gradients[1], gradients[2]
            gradient = gradients[0]
            if not even:
                gradient = gradient[:, :, top : top + h, left : left + w]
            return (gradient * self.derivative(src),)

        backward = self.compile(backward)
        for result in backward():
            self.check(result)
        self.time(backward)

    def rectify(self):
        torch = self.torch
        count = self.request["elements"]
        src = pattern(torch, (count,), 1, 1, self.device).to(self.type)
        if self.request["work"] == "rectify_forward":
            call = self.compile(lambda: self.trelu(src))
        else:
            diff_dst = pattern(torch, (count,), 2, 1, self.device).to(self.type)
            call = self.compile(lambda: diff_dst * self.derivative(src))
        self.check(call())
        self.time(call)

    def orthogonal(self):
        torch = self.torch
        n = self.request["elements"]
        matrix = torch.empty(n, n, device=self.device)
        torch.nn.init.orthogonal_(matrix)
        q = matrix.double()
        worst = (q.T @ q - torch.eye(n, device=self.device)).abs().max().item()
        if not worst <= 1e-5:
            raise ValueError(f"|Q'Q - I| = {worst}")
        self.time(lambda: torch.nn.init.orthogonal_(matrix))

    def network(self):
        """Plain ResNet-50, weights by the pattern; SAME padding that is uneven needs a pad."""
        torch = self.torch
        nn = torch.nn
        work = self

        class TReLU(nn.Module):
            def forward(self, x):
                return work.trelu(x)

        modules = []
        layers = [0]  # this library's index of the last layer: it sets the seed of the weights

        def same(size, kernel, stride):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            return total // 2, total - total // 2

        def activation():
            modules.append(TReLU())
            layers[0] += 1

        def convolution(inputs, outputs, kernel, stride, extent):
            before, after = same(extent, kernel, stride)
            if before != after:
                modules.append(nn.ZeroPad2d((before, after, before, after)))
            layer = nn.Conv2d(inputs, outputs, kernel, stride, before if before == after else 0)
            layers[0] += 1
            fan = inputs * kernel * kernel
            with torch.no_grad():
                layer.weight.copy_(
                    nhwc(
                        torch,
                        (outputs, kernel, kernel, inputs),
                        10 + layers[0],
                        math.sqrt(1 / fan),
                        "cpu",
                    )
                )
                layer.bias.zero_()
            modules.append(layer)
            return math.ceil(extent / stride)

        extent = convolution(CHANNELS, 64, 7, 2, SIZE)
        before, after = same(extent, 3, 2)
        modules.append(nn.ConstantPad2d((before, after, before, after), -math.inf))
        modules.append(nn.MaxPool2d(3, 2))
        layers[0] += 1
        extent = math.ceil(extent / 2)
        width_in = 64
        for stage, count in enumerate(BLOCKS):
            width = 64 << stage
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                activation()
                convolution(width_in, width, 1, 1, extent)
                activation()
                extent = convolution(width, width, 3, stride, extent)
                activation()
                convolution(width, 4 * width, 1, 1, extent)
                width_in = 4 * width
        activation()
        modules += [nn.AdaptiveAvgPool2d(1)]
        layers[0] += 1
        convolution(width_in, CLASSES, 1, 1, 1)
        modules += [nn.Flatten()]
        return nn.Sequential(*modules).to(self.device, memory_format=torch.channels_last)

    def step(self):
        torch = self.torch
        if self.request["network"] != "resnet50:0":
            raise ValueError("no network " + self.request["network"])
        batch = self.request["batch"]
        model = self.network()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=1e-4,
            momentum=0.9,
            nesterov=True,
            fused=self.device.type == "cuda",
        )
        images = nhwc(torch, (batch, SIZE, SIZE, CHANNELS), 1, 1, self.device)
        labels = hashed(torch, batch, 5, self.device) % CLASSES
        forward = self.compile(model)

        def loss_of():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = forward(images)
            return torch.nn.functional.cross_entropy(logits.float(), labels, label_smoothing=0.1)

        def call():
            optimizer.zero_grad(set_to_none=True)
            loss_of().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
            optimizer.step()

        if self.request["work"] == "activation_bytes":
            call()
            optimizer.zero_grad(set_to_none=True)
            self.synchronize()
            before = torch.cuda.memory_allocated()
            loss = loss_of()
            self.synchronize()
            self.answer["values"] = [torch.cuda.memory_allocated() - before]
            loss.backward()
            return
        loss = loss_of().item()
        self.answer["checks"].append([loss, abs(loss)])
        self.time(call)

    def run(self):
        work = self.request["work"]
        if work in ("forward", "backward_data", "backward_weights"):
            self.convolution()
        elif work.startswith("rectify"):
            self.rectify()
        elif work == "orthogonal":
            self.orthogonal()
        elif work in ("step", "activation_bytes"):
            self.step()
        else:
            raise ValueError("unknown work " + work)
        return self.answer


def main():
    request = json.load(sys.stdin)
    try:
        import torch
    except ImportError:
        print(json.dumps({"skipped": "PyTorch is not installed"}))
        return
    if request.get("device", "cuda") == "cuda":
        if not torch.cuda.is_available():
            print(json.dumps({"skipped": "PyTorch finds no GPU"}))
            return
        torch.backends.cudnn.benchmark = True
    print(json.dumps(Work(torch, request).run()))


if __name__ == "__main__":
    main()
