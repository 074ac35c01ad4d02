"""Times the same tasks on one timm model in PyTorch and in planish, and prints the ratios.

    pip install torch timm safetensors
    python benches/pytorch/compare.py [--model vit_base_patch16_224] [--batch 8] [--rounds 3]
                                        [--threads 2] [--only NAME …] [--tiles] [--jax]

Both use one timm checkpoint with random weights and one batch of random pixels. Each task returns a
number, which is compared before the times are: a loss, the norm of a gradient, vᵀHv. Rounds alternate,
so that changes in machine speed affect both; medians are printed. In PyTorch, a Hessian-vector product
is a double backward, and frozen blocks below a layer run without autograd. `--tiles` runs planish a
second time in each round, with f32 products on AMX tiles. `--jax` (pip install jax) also runs the
forward pass and the gradient in JAX, compiled as a whole.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import tempfile
import time

import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 2e-3
# About sixty sequential products, with operands rounded by 2^-8.
TOLERANCE_BF16 = 3e-2


class Planish:
    """The bench binary; one task per line."""

    def __init__(self, folder, pixels, threads, *options):
        build = ["cargo", "bench", "--bench", "vit", "--no-run", "--message-format=json"]
        out = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
        messages = [json.loads(line) for line in out.splitlines()]
        names = [m["executable"] for m in messages if m.get("target", {}).get("name") == "vit"]
        environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [names[-1], "--turns", folder, pixels, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout.readline().strip() == "ready"

    def run(self, task):
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        seconds, check = self.process.stdout.readline().split()
        return float(seconds), float(check)


def blocks_of(model):
    """The parameters of each planish layer between the first and the last norm."""
    if not hasattr(model, "stages"):
        return [list(block.parameters()) for block in model.blocks]
    layers = []
    for index, stage in enumerate(model.stages):
        layers += [stage.downsample] if index else []
        layers += stage.blocks
    return [list(layer.parameters()) for layer in layers]


class PyTorch:
    """The usual PyTorch implementation."""

    def __init__(self, model, pixels, labels):
        self.model, self.pixels, self.labels = model, pixels, labels
        self.blocks = blocks_of(model)
        self.all = list(model.parameters())

    def loss(self):
        return F.cross_entropy(self.model(self.pixels), self.labels)

    def norm(self, tensors):
        return torch.sqrt(sum((t.double() ** 2).sum() for t in tensors)).item()

    def run(self, task):
        start = time.perf_counter()
        check = getattr(self, task.replace(", ", "_").replace(" ", "_"))()
        return time.perf_counter() - start, check

    def forward(self):
        with torch.no_grad():
            return self.loss().item()

    def gradient(self):
        return self.norm(torch.autograd.grad(self.loss(), self.all))

    def forward_bf16(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.forward()

    def gradient_bf16(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.loss()
        return self.norm(torch.autograd.grad(loss, self.all))

    def curvature(self, parameters):
        """vᵀHv with v = w: double backward with the other blocks' weights fixed."""
        for p in self.all:
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        # The fused attention of PyTorch has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            gradient = torch.autograd.grad(self.loss(), parameters, create_graph=True)
            along = sum((g * p.detach()).sum() for g, p in zip(gradient, parameters))
            product = torch.autograd.grad(along, parameters)
        for p in self.all:
            p.requires_grad_(True)
        return product

    def hvps_of_all_blocks(self):
        total = 0.0
        for parameters in self.blocks:
            product = self.curvature(parameters)
            total += sum((h.double() * p.double()).sum() for h, p in zip(product, parameters)).item()
        return total

    def hvp_first_block(self):
        return self.norm(self.curvature(self.blocks[0]))

    def hvp_last_block(self):
        return self.norm(self.curvature(self.blocks[-1]))

    def last_block_cached(self):
        """The last block's gradient, with all stages below run without autograd."""
        for p in self.all:
            p.requires_grad_(False)
        for p in self.blocks[-1]:
            p.requires_grad_(True)
        gradient = torch.autograd.grad(self.loss(), self.blocks[-1])
        for p in self.all:
            p.requires_grad_(True)
        return self.norm(gradient)

    def pol_step_cached(self):
        """Perturb the head along its batch's gradient, one forward pass a point of the line, then
        the last block's gradient. The line's points are as many as planish's search has halvings
        and doublings on a network, sixteen."""
        head = list(self.model.get_classifier().parameters())
        for p in self.all:
            p.requires_grad_(False)
        for p in head:
            p.requires_grad_(True)
        gradient = torch.autograd.grad(self.loss(), head)
        kept = [p.detach().clone() for p in head]
        with torch.no_grad():
            for point in range(16):
                for p, w, g in zip(head, kept, gradient):
                    p.copy_(w - 0.1 * point * g)
                self.loss()
            for p, w in zip(head, kept):
                p.copy_(w)
        self.last_block_cached()
        # The step differs from planish's, so there is no number to compare.
        return float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--tiles", action="store_true")
    parser.add_argument("--jax", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = timm.create_model(args.model, num_classes=100).eval()
    # timm initialises the head to zero, which would make the gradients of all blocks zero.
    torch.nn.init.normal_(model.get_classifier().weight, std=0.02)
    size = model.default_cfg["input_size"]
    pixels = torch.randn(args.batch, *size)
    labels = torch.arange(args.batch) % 100
    with tempfile.TemporaryDirectory() as folder:
        safetensors.torch.save_file(model.state_dict(), f"{folder}/model.safetensors")
        config = {
            "architecture": args.model,
            "num_classes": 100,
            "pretrained_cfg": {**model.default_cfg, "num_classes": 100},
        }
        pathlib.Path(folder, "config.json").write_text(json.dumps(config, default=str))
        batch = f"{folder}/pixels.safetensors"
        safetensors.torch.save_file({"pixels": pixels, "labels": labels}, batch)
        ours, theirs = [Planish(folder, batch, args.threads)], PyTorch(model, pixels, labels)
        if args.tiles:
            ours.append(Planish(folder, batch, args.threads, "--tiles"))
        peer = None
        if args.jax:
            from jax_peer import Jax

            peer = Jax(model, pixels, labels)
            print(f"JAX {peer.version}, on all cores")
        print(f"{platform.processor() or platform.machine()}, {args.threads} threads, ", end="")
        print(f"torch {torch.__version__}, timm {timm.__version__}, {args.model}, ", end="")
        print(f"batch {args.batch}, f32 unless said; seconds an image, medians of {args.rounds}")
        names = ["planish", "on tiles"][: len(ours)]
        heading = "".join(f"{name:>10}{'times':>8}" for name in names)
        print(f"{'':<22}{'PyTorch':>10}{heading}")
        tasks = ["forward", "gradient", "hvp first block", "hvp last block", "hvps of all blocks"]
        tasks += ["forward bf16", "gradient bf16", "last block, cached", "pol step, cached"]
        for task in tasks:
            if args.only and not any(part in task for part in args.only):
                continue
            _, other = theirs.run(task)
            tolerance = TOLERANCE_BF16 if task.endswith("bf16") else TOLERANCE
            beside = [peer] if peer and task in peer.tasks() else []
            for side in (*ours, *beside):
                _, mine = side.run(task)
                if abs(mine - other) > tolerance * abs(other):
                    name = type(side).__name__
                    raise SystemExit(f"{task}: {name} finds {mine}, PyTorch {other}")
            rounds, sides = range(args.rounds), (theirs, *ours, *beside)
            times = [[side.run(task)[0] for side in sides] for _ in rounds]
            other, *mine = [statistics.median(side) / args.batch for side in zip(*times)]
            jax = "".join(f"   JAX {seconds:.4f}" for seconds in mine[len(ours) :])
            mine = mine[: len(ours)]
            columns = "".join(f"{seconds:>10.4f}{other / seconds:>8.2f}" for seconds in mine)
            print(f"{task:<22}{other:>10.4f}{columns}{jax}", flush=True)


if __name__ == "__main__":
    main()
