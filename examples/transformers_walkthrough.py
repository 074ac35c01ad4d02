"""Makes what docs/walkthroughs/transformers.md starts from: an ImageFolder and a checkpoint by transformers.

    pip install torch transformers pillow
    python examples/transformers_walkthrough.py /usr/share/datasets/fashion-mnist

This writes clothes/{train,val,test}/CLASS/*.png (Fashion-MNIST's first 4,000 training images, the next
2,000, and the first 4,000 test images) and vit-clothes/ (a small ViT that transformers trained on the
first until it over-fitted, saved by `save_pretrained`).
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
EPOCHS, BATCH, RATE = 40, 128, 1e-3


def idx(path):
    opened = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
    data = opened.read()
    dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def split(folder, name):
    read = lambda kind: idx(next(folder.glob(f"{name}-{kind}-ubyte*")))
    return read("images-idx3"), read("labels-idx1")


def write(images, labels, folder):
    for i, (image, label) in enumerate(zip(images, labels)):
        place = folder / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i:05}.png")


def main():
    source = Path(sys.argv[1])
    images, labels = split(source, "train")
    test_images, test_labels = split(source, "t10k")
    write(images[:4000], labels[:4000], Path("clothes/train"))
    write(images[4000:6000], labels[4000:6000], Path("clothes/val"))
    write(test_images[:4000], test_labels[:4000], Path("clothes/test"))

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=28, patch_size=7, num_channels=3, hidden_size=64, num_hidden_layers=6,
        num_attention_heads=4, intermediate_size=256,
        id2label=dict(enumerate(CLASSES)), label2id={name: i for i, name in enumerate(CLASSES)},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    processor = ViTImageProcessor(size={"height": 28, "width": 28})
    x = torch.tensor(images[:4000]).float().div(127.5).sub(1)[:, None].repeat(1, 3, 1, 1)
    y = torch.tensor(labels[:4000]).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (4000 // BATCH))
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(4000)[: 4000 // BATCH * BATCH].split(BATCH):
            loss = model(pixel_values=x[batch], labels=y[batch]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: training loss {total / (4000 // BATCH):.4f}", flush=True)
    model.save_pretrained("vit-clothes")
    processor.save_pretrained("vit-clothes")


if __name__ == "__main__":
    main()
