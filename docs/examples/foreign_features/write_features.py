"""Features of a dataset's boxes by a ViT, in a feature store: write_features.py STORE DATASET ROOT FOLDER."""

import sys
from pathlib import Path

import pyarrow as pa
import torch
from PIL import Image, ImageOps
from torchvision.models import VisionTransformer
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import resize, to_tensor

from flows.plan.catalog import open_catalog
from storage.feature_store import create_features, write_index

SIDE, PATCH, WIDTH = 64, 16, 96
CELLS = SIDE // PATCH


def main(store: str, dataset: str, root: str, folder: str) -> None:
    data = open_catalog(store)[dataset]
    images = data.images(columns=["image_id", "rel_path"])
    boxes = data.boxes(columns=["box_id", "image_id", "x1", "y1", "x2", "y2"])
    paths = dict(zip(images["image_id"].to_pylist(), images["rel_path"].to_pylist(), strict=True))
    vit = VisionTransformer(SIDE, PATCH, num_layers=2, num_heads=4, hidden_dim=WIDTH, mlp_dim=2 * WIDTH)
    model = create_feature_extractor(vit, {"encoder.ln": "tokens"}).eval()  # random weights: load yours here
    with create_features(folder, len(boxes), (WIDTH, CELLS, CELLS)) as writer:
        for start in range(0, len(boxes), 256):  # a shard of 256 rows at a time
            crops = []
            for box in boxes.slice(start, 256).to_pylist():
                with Image.open(Path(root, paths[box["image_id"]])) as image:
                    corners = [round(box[name]) for name in ("x1", "y1", "x2", "y2")]
                    crop = ImageOps.exif_transpose(image).convert("RGB").crop(corners)
                crops.append(resize(to_tensor(crop), [SIDE, SIDE], antialias=True))
            with torch.inference_mode():
                tokens = model(torch.stack(crops))["tokens"][:, 1:]  # without the class token
            writer.write(start, tokens.mT.reshape(-1, WIDTH, CELLS, CELLS).numpy())
    write_index(folder, pa.table({"row": range(len(boxes)), "box_id": boxes["box_id"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
