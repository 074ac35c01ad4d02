"""Writes optimizers.json: weights after each of a few steps, by torch.optim in f32.

Run manually, not in CI (torch):

    python tests/reference/make_optimizers.py

Each case holds the rule's settings, two tensors' initial `weights`, and for each step the learning
`rate`, the `gradients` and torch's `weights` after the step. Inputs are multiples of 1/1024, which
text represents exactly. Case `clip` holds gradients, `max_norm`, and the result of
torch.nn.utils.clip_grad_norm_.
"""

import json
from pathlib import Path

import torch

SHAPES = [(3, 4), (5,)]
RATES = [0.1, 0.1, 0.05, 0.2]
CASES = {
    "sgd plain": ("sgd", dict(momentum=0.0, nesterov=False, weight_decay=0.0)),
    "sgd momentum decay": ("sgd", dict(momentum=0.9, nesterov=False, weight_decay=0.01)),
    "sgd nesterov decay": ("sgd", dict(momentum=0.9, nesterov=True, weight_decay=0.05)),
    "adamw": ("adamw", dict(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)),
    "adamw decay": ("adamw", dict(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)),
}


def draw(generator):
    return [torch.round(torch.randn(s, generator=generator) * 1024) / 1024 for s in SHAPES]


def flat(tensors):
    return [t.detach().flatten().double().tolist() for t in tensors]


def main():
    generator = torch.Generator().manual_seed(0)
    cases = []
    for name, (rule, settings) in CASES.items():
        parameters = [torch.nn.Parameter(t) for t in draw(generator)]
        make = torch.optim.SGD if rule == "sgd" else torch.optim.AdamW
        optimizer = make(parameters, lr=RATES[0], **settings)
        case = dict(name=name, rule=rule, settings=settings, weights=flat(parameters), steps=[])
        for rate in RATES:
            optimizer.param_groups[0]["lr"] = rate
            gradients = draw(generator)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient.clone()
            optimizer.step()
            case["steps"].append(
                dict(rate=rate, gradients=flat(gradients), weights=flat(parameters))
            )
        cases.append(case)
    gradients = draw(generator)
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.5)
    clip = dict(
        gradients=flat(gradients),
        max_norm=1.5,
        norm=float(norm),
        clipped=flat([p.grad for p in parameters]),
    )
    out = dict(torch=torch.__version__, shapes=SHAPES, cases=cases, clip=clip)
    Path(__file__).with_name("optimizers.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
