"""timm's ViT in JAX, compiled as a whole, for `compare.py --jax`."""

import math
import time

import jax
import jax.numpy as jnp

# As in timm.
EPSILON = 1e-6


class Jax:
    """A forward pass and a gradient of all weights, on the same weights and images."""

    version = jax.__version__

    def __init__(self, model, pixels, labels):
        self.weights = {name: jnp.asarray(t.numpy()) for name, t in model.state_dict().items()}
        self.depth, self.heads = len(model.blocks), model.blocks[0].attn.num_heads
        self.patch = model.patch_embed.patch_size[0]
        self.pixels, self.labels = jnp.asarray(pixels.numpy()), jnp.asarray(labels.numpy())
        # Images are arguments; XLA would constant-fold constants at compile time.
        self.jitted = {"forward": jax.jit(self.loss), "gradient": jax.jit(jax.grad(self.loss))}

    def tasks(self):
        return list(self.jitted)

    def run(self, task):
        start = time.perf_counter()
        found = jax.block_until_ready(self.jitted[task](self.weights, self.pixels, self.labels))
        seconds = time.perf_counter() - start
        if task == "gradient":
            squares = sum(float((g**2).sum()) for g in jax.tree.leaves(found))
            return seconds, math.sqrt(squares)
        return seconds, float(found)

    def loss(self, w, pixels, labels):
        logits = self.logits(w, pixels)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -chosen.mean()

    def logits(self, w, pixels):
        def linear(x, name):
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        def norm(x, name):
            mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            y = (x - mean) * jax.lax.rsqrt(var + EPSILON)
            return y * w[f"{name}.weight"] + w[f"{name}.bias"]

        b, c, height, width = pixels.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        patches = pixels.reshape(b, c, rows, p, columns, p).transpose(0, 2, 4, 1, 3, 5)
        kernel = w["patch_embed.proj.weight"]
        x = patches.reshape(b, rows * columns, -1) @ kernel.reshape(kernel.shape[0], -1).T
        x = x + w["patch_embed.proj.bias"]
        x = jnp.concatenate([jnp.broadcast_to(w["cls_token"], (b, 1, x.shape[-1])), x], axis=1)
        x = x + w["pos_embed"]
        tokens, dim = x.shape[1:]
        for i in range(self.depth):
            block = f"blocks.{i}"
            qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
            q, k, v = qkv.reshape(b, tokens, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
            scores = q @ k.swapaxes(-1, -2) / math.sqrt(dim // self.heads)
            mixed = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(b, tokens, dim)
            x = x + linear(mixed, f"{block}.attn.proj")
            inner = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            x = x + linear(jax.nn.gelu(inner, approximate=False), f"{block}.mlp.fc2")
        return linear(norm(x, "norm")[:, 0], "head")
