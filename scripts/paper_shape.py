"""Feature files of the paper's shape in the layout of its published code: seven data sets, seven modalities, 1024 columns, for
trying the import and a run of the whole stream without the encoders' features (docs/import.md). Needs NumPy and h5py.

    python3 scripts/paper_shape.py FOLDER --scale 0.2
    cmcl import cmcl-h5 FOLDER --backbone imagebind --out STREAM
    cmcl run --stream STREAM --preset paper-imagebind

The features are made up: a latent of the sample that all modalities share, leaning towards its class, through a map of each modality's
own, with noise, at one length. What methods do on them says nothing about what they do on ImageBind's.
"""

import argparse
import os

import h5py
import numpy as np

# Modalities in the order of the file, training and test samples, classes; sizes as public descriptions of the sets give them.
SETS = {
    "UCF101": (["text", "video"], 9537, 3783, 101),
    "ESC50": (["text", "audio"], 1600, 400, 50),
    "NYUDv2": (["vision", "text", "depth"], 795, 654, 10),
    "Clotho": (["text", "audio"], 3839, 1045, 1),
    "VGGSound-S": (["text", "audio", "video"], 10000, 2000, 309),
    "TVL": (["vision", "text", "tactile"], 10000, 400, 1),
    "LLVIP": (["vision", "thermal"], 12025, 3463, 1),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--scale", type=float, default=1.0, help="share of the samples (at least 80 of each)")
parser.add_argument("--columns", type=int, default=1024)
parser.add_argument("--backbone", default="imagebind")
parser.add_argument("--seed", type=int, default=0)
given = parser.parse_args()

rng = np.random.default_rng(given.seed)
latent = 96
maps = {m: rng.normal(size=(latent, given.columns)).astype("f4") for sets in SETS.values() for m in sets[0]}


def features(modality, z):
    """Rows of length 1 from latents."""
    x = z @ maps[modality] / np.sqrt(latent) + 0.7 * rng.normal(size=(len(z), given.columns)).astype("f4")
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype("f4")


os.makedirs(given.folder, exist_ok=True)

for name, (modalities, train, test, classes) in SETS.items():
    centres = rng.normal(size=(classes, latent)).astype("f4")

    for split, count in [("train", train), ("test", test)]:
        count = max(80, round(count * given.scale))
        label = np.arange(count) % classes
        z = 0.7 * centres[label] + 0.7 * rng.normal(size=(count, latent)).astype("f4")
        stacked = np.stack([features(m, z) for m in modalities], axis=1)

        with h5py.File(f"{given.folder}/{name}_{split}_{given.backbone}.h5", "w") as file:
            for i in range(count):
                file.create_dataset(f"tensor({i})__class {label[i]}__{label[i]}", data=stacked[i])

        print(f"{name} {split}: {count} samples of {len(modalities)} × {given.columns}")

    with h5py.File(f"{given.folder}/{name}_class_{given.backbone}.h5", "w") as file:
        for c, row in enumerate(features("text", centres)):
            file.create_dataset(f"class {c}", data=row)
