"""PyTorch's rates for the operations of `cargo bench --workspace --bench ops` and `--bench bf16`, on two
threads and with the same shapes: a ViT-B/16 on eight images of 224². As in these benches, a large copy
precedes each run, so that operands are not in the caches.

    pip install torch
    python benches/pytorch/operations.py [THREADS]
"""

import os
import sys
import time

import torch
import torch.nn.functional as F

RUNS = 15
# Size of the copy, as in kernels/benches/ceilings.
COPIED = 1 << 24
ROWS, DIM, HEADS, TOKENS, IMAGES = 8 * 197, 768, 12, 197, 8


def median(run):
    run()
    full = torch.ones(COPIED)
    empty = torch.zeros(COPIED)
    times = []
    for _ in range(RUNS):
        empty.copy_(full)
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[RUNS // 2]


def row_operation(name, run, x):
    """Milliseconds for the value, and for the gradient from values saved by autograd."""
    with torch.no_grad():
        value = median(lambda: run(x))
    y = run(x.requires_grad_())
    gy = torch.randn_like(y)
    gradient = median(lambda: torch.autograd.grad(y, x, gy, retain_graph=True))
    print(f"{name:<18}value {1e3 * value:>7.2f} ms  vjp {1e3 * gradient:>7.2f} ms")


def product(m, k, n):
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(m, k, dtype=dtype), torch.randn(n, k, dtype=dtype).t()
        rates.append(2e-9 * m * k * n / median(lambda: a @ b))
    print(f"{m} × {k} × {n}: {rates[0]:.0f} GFLOP/s in f32, {rates[1]:.0f} in bf16")


def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else os.cpu_count())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {RUNS}")
    hidden = torch.randn(ROWS, 4 * DIM)
    row_operation("gelu", F.gelu, hidden)
    row_operation("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), hidden.detach())
    scores = torch.randn(IMAGES, HEADS, TOKENS, TOKENS)
    row_operation("softmax", lambda x: torch.softmax(x, -1), scores)
    norm = torch.nn.LayerNorm(DIM)
    row_operation("layer_norm", norm, torch.randn(ROWS, DIM))
    for rows in (TOKENS, ROWS):
        for inputs, outputs in ((DIM, 3 * DIM), (DIM, DIM), (DIM, 4 * DIM), (4 * DIM, DIM)):
            product(rows, inputs, outputs)
    product(DIM, ROWS, 4 * DIM)


if __name__ == "__main__":
    main()
