"""VideoLLaMA 2's connector restated in float64 from its published formulas, on its published key names.

Written from the paper (arXiv 2406.07476) and the description of timm's RegNet stage; shares no code with the model.
"""

from __future__ import annotations

import math

import torch


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + torch.exp(-x))


def norm(x, w, name):
    """Over the channels of each pixel `(d, h, w)`, eps 1e-5."""
    x = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    return x * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]


def pointwise(x, weight):
    return torch.einsum("oi,ihw->ohw", weight[:, :, 0, 0], x)


def block(x, w, name):
    y = silu(norm(pointwise(x, w[f"{name}.conv1.conv.weight"]), w, f"{name}.conv1.bn"))
    kernel, (rows, columns) = w[f"{name}.conv2.conv.weight"], y.shape[1:]
    padded = torch.zeros(len(y), rows + 2, columns + 2, dtype=y.dtype)
    padded[:, 1:-1, 1:-1] = y
    y = sum(
        kernel[:, 0, i, j, None, None] * padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)
    )
    y = silu(norm(y, w, f"{name}.conv2.bn"))
    squeezed = silu(w[f"{name}.se.fc1.weight"][:, :, 0, 0] @ y.mean((1, 2)) + w[f"{name}.se.fc1.bias"])
    gate = torch.sigmoid(w[f"{name}.se.fc2.weight"][:, :, 0, 0] @ squeezed + w[f"{name}.se.fc2.bias"])
    y = norm(pointwise(y * gate[:, None, None], w[f"{name}.conv3.conv.weight"]), w, f"{name}.conv3.bn")
    if f"{name}.downsample.conv.weight" in w:
        x = norm(pointwise(x, w[f"{name}.downsample.conv.weight"]), w, f"{name}.downsample.bn")
    return silu(y + x)


def stage(x, w, name):
    number = 1
    while f"{name}.b{number}.conv1.conv.weight" in w:
        x = block(x, w, f"{name}.b{number}")
        number += 1
    return x


def shrink(x, stride, padding, kernel, bias):
    """`(frames, d, h, w)` by a 3D convolution whose kernel is its stride, or by the mean where `kernel` is None."""
    frames, channels, rows, columns = x.shape
    padded = torch.zeros(*(size + 2 * padding for size in (frames, channels, rows, columns)), dtype=x.dtype)
    padded = padded[:, :channels]
    inside = [slice(padding, padding + size) for size in (frames, rows, columns)]
    padded[inside[0], :, inside[1], inside[2]] = x
    sizes = [(padded.shape[axis] - step) // step + 1 for axis, step in zip((0, 2, 3), stride, strict=True)]
    out = torch.zeros(sizes[0], channels, *sizes[1:], dtype=x.dtype)
    for t in range(sizes[0]):
        for i in range(sizes[1]):
            for j in range(sizes[2]):
                first = [index * step for index, step in zip((t, i, j), stride, strict=True)]
                part = padded[first[0] : first[0] + stride[0], :, first[1] : first[1] + stride[1]]
                part = part[..., first[2] : first[2] + stride[2]].transpose(0, 1)  # (d, frames, rows, columns)
                mean = part.mean((1, 2, 3))
                out[t, :, i, j] = mean if kernel is None else torch.einsum("oithw,ithw->o", kernel, part) + bias
    return silu(out)


def restated_stc(picture, w, stride=(2, 2, 2), padding=0):
    """Picture tokens `(frames, patches, vision d)` to `(tokens, D)`, time-major."""
    w = {name: tensor.double() for name, tensor in w.items()}
    frames, patches, _ = picture.shape
    side = math.isqrt(patches)
    x = torch.stack([stage(frame.T.reshape(-1, side, side), w, "s1") for frame in picture.double()])
    x = shrink(x, stride, padding, w.get("sampler.0.weight"), w.get("sampler.0.bias"))
    tokens = torch.cat([stage(step, w, "s2").flatten(1).T for step in x])
    hidden = gelu(tokens @ w["readout.0.weight"].T + w["readout.0.bias"])
    return hidden @ w["readout.2.weight"].T + w["readout.2.bias"]


def restated_audio_mlp(sound, w):
    """BEATs tokens `(n, audio d)` to `(n, D)`: the published `mlp2x_gelu`."""
    w = {name: tensor.double() for name, tensor in w.items()}
    hidden = gelu(sound.double() @ w["0.weight"].T + w["0.bias"])
    return hidden @ w["2.weight"].T + w["2.bias"]
