"""Scenes on the network's input: reduced decoding shows what full decoding shows, where the boxes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from personsearch_core.boxes import Placement, place_image
from personsearch_core.data.augmentation import zoomed
from personsearch_core.data.network_input import place_scene, reduction, render_scene, require_decoder
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.detector import build_detector
from personsearch_core.models.weights import weights_digest
from personsearch_core.recipes import DetectorModel
from tests.personsearch_core.scene_files import TINY

FULL = DetectorModel(image_width=160, image_height=160)
REDUCED = FULL.model_copy(update={"decode": "reduced"})
BOX = np.array([[263, 119, 421, 373]], np.float32)
"""White on grey, in scenes of odd sizes."""
GREY = 30


def write_scene(path: Path, width: int = 1003, height: int = 617, **options: object) -> Scene:
    pixels = np.full((height, width, 3), GREY, np.uint8)
    x1, y1, x2, y2 = BOX[0].astype(int)
    pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(path, quality=95, **options)
    return Scene("s", str(path), width, height, BOX, np.zeros(1, bool), ("b",), (None,))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return write_scene(tmp_path_factory.mktemp("scenes") / "s.jpg")


def edges(image: torch.Tensor, placement: Placement) -> list[float]:
    """Where the white box is, in fractions of a pixel, from how bright the region's rows and columns are."""
    u1, v1, u2, v2 = placement.target
    bright = ((image[:, v1:v2, u1:u2].float().mean(dim=0) - GREY) / (255 - GREY)).clamp(min=0)
    found = []
    for axis, offset in ((0, u1), (1, v1)):
        line = bright.sum(dim=axis)
        line = line / line.max()
        inside = (line > 0.5).nonzero().flatten()
        first, last = int(inside[0]), int(inside[-1])
        found.append(
            (offset + first + 1 - float(line[: first + 1].sum()), offset + last + float(line[last:].sum()))
        )
    return [found[0][0], found[1][0], found[0][1], found[1][1]]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(zoom=st.floats(0.4, 1.6), at_x=st.floats(0, 0.5), at_y=st.floats(0, 0.3), mirrored=st.booleans())
def test_reduced_shows_what_full_shows_with_boxes_in_their_place(
    scene: Scene, zoom: float, at_x: float, at_y: float, mirrored: bool
) -> None:
    whole = place_image(scene.width, scene.height, 160, 160, mirrored=mirrored)
    placement = zoomed(whole, zoom, at_x, at_y)
    assert reduction(placement) in (2, 4, 8)
    full, reduced = (render_scene(scene, placement, model) for model in (FULL, REDUCED))
    difference = (full.int() - reduced.int()).abs().float()
    assert 0 < difference.mean() < 1.5 and difference.max() < 60
    np.testing.assert_allclose(edges(reduced, placement), edges(full, placement), atol=0.1)
    if zoom <= 1:  # else the box may be cut
        np.testing.assert_allclose(edges(reduced, placement), placement.map_boxes(BOX)[0], atol=0.1)


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ((0, 0, 1920, 1080), (0, 0, 640, 360), 2),
        ((0, 0, 1280, 720), (0, 0, 640, 360), 2),
        ((0, 0, 1279, 720), (0, 0, 640, 360), 1),
        ((0, 0, 5120, 5120), (0, 0, 640, 640), 8),
        ((0, 0, 9000, 200), (0, 0, 640, 100), 2),
    ],
)
def test_an_image_is_never_reduced_below_its_target(
    source: tuple[int, int, int, int], target: tuple[int, int, int, int], wanted: int
) -> None:
    assert reduction(Placement(source, target, 640, 640)) == wanted


@pytest.mark.parametrize("kind", ["png", "turned", "small", "cmyk"])
def test_what_cannot_be_reduced_is_decoded_in_full(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    scene = write_scene(
        tmp_path / ("s.png" if kind == "png" else "s.jpg"),
        **({"width": 300, "height": 200} if kind == "small" else {}),  # type: ignore[arg-type]
        **({"exif": exif} if kind == "turned" else {}),
    )
    if kind == "cmyk":
        Image.open(scene.path).convert("CMYK").save(scene.path)
    full, reduced = (place_scene(scene, model).pixels for model in (FULL, REDUCED))
    assert torch.equal(full, reduced)


def test_an_image_that_is_not_what_its_boxes_refer_to_is_refused(scene: Scene, tmp_path: Path) -> None:
    other = Scene(**{**vars(scene), "height": 618})
    with pytest.raises(PersonSearchError, match="is 1003x617 pixels, but scene s says 1003x618"):
        place_scene(other, REDUCED)
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(Path(scene.path).read_bytes()[:3000])
    with pytest.raises(PersonSearchError, match=r"damaged\.jpg cannot be decoded"):
        place_scene(Scene(**{**vars(scene), "path": str(damaged)}), REDUCED)


def test_decoding_keys_what_it_changes_and_its_default_nothing() -> None:
    assert "decode" not in FULL.model_dump() and REDUCED.model_dump()["decode"] == "reduced"
    torch.manual_seed(0)
    full = build_detector(TINY)
    reduced = build_detector(TINY.model_copy(update={"decode": "reduced"}))
    reduced.load_state_dict(full.state_dict())
    for variant in (None, "j3"):
        assert weights_digest(full, variant) != weights_digest(reduced, variant)


def test_nvjpeg_needs_a_gpu() -> None:
    model = FULL.model_copy(update={"decode": "nvjpeg"})
    with pytest.raises(PersonSearchError, match="nvjpeg decodes on an NVIDIA GPU, but this computes on cpu"):
        require_decoder(model, torch.device("cpu"))
    require_decoder(model, torch.device("cuda"))
    require_decoder(REDUCED, torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_nvjpeg_shows_what_the_cpu_shows(scene: Scene) -> None:
    decoded_there = FULL.model_copy(update={"decode": "nvjpeg"})
    found = place_scene(scene, decoded_there, device=torch.device("cuda")).pixels
    wanted = place_scene(scene, FULL).pixels
    assert found.is_cuda and (found.cpu().int() - wanted.int()).abs().float().mean() < 1.5
