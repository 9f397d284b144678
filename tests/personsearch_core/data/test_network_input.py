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
from personsearch_core.data.network_input import (
    decoded,
    picture_of,
    place_scene,
    reduction,
    require_decoder,
)
from personsearch_core.data.nvjpeg import Encoded
from personsearch_core.data.prefetch import NetworkInputs, brought
from personsearch_core.data.scenes import Scene
from personsearch_core.errors import PersonSearchError
from personsearch_core.models.detector import build_detector
from personsearch_core.models.weights import weights_digest
from personsearch_core.recipes import DetectorModel
from tests.personsearch_core.scene_files import TINY

FULL = DetectorModel(image_width=160, image_height=160)
NVJPEG = FULL.model_copy(update={"decode": "nvjpeg"})
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
    full, reduced = (picture_of(scene, placement, model) for model in (FULL, REDUCED))
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
    with pytest.raises(PersonSearchError, match="nvjpeg decodes on an NVIDIA GPU, but this computes on cpu"):
        require_decoder(NVJPEG, torch.device("cpu"))
    require_decoder(NVJPEG, torch.device("cuda"))
    require_decoder(REDUCED, torch.device("cpu"))


KINDS: dict[str, dict[str, object]] = {
    "plain.jpg": {},
    "turned.jpg": {"exif": 6},
    "grey.jpg": {"mode": "L"},
    "progressive.jpg": {"progressive": True},
    "cmyk.jpg": {"mode": "CMYK"},
    "other.png": {},
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Scene]:
    """Scenes whose files differ in what a GPU's decoders take, in one size as shown."""
    folder, scenes = tmp_path_factory.mktemp("kinds"), []
    for name, options in KINDS.items():
        turned = "exif" in options
        written = write_scene(folder / name, *((617, 1003) if turned else (1003, 617)))
        exif = Image.Exif()
        exif[0x0112] = options.get("exif", 1)
        with Image.open(written.path) as image:
            converted = image.convert(str(options.get("mode", "RGB")))
        progressive = {"progressive": True} if "progressive" in options else {}
        converted.save(written.path, exif=exif, **progressive)
        scenes.append(Scene(**{**vars(written), "width": 1003, "height": 617}))
    return scenes


def test_jpegs_of_a_batch_are_decoded_together(kinds: list[Scene], caplog: pytest.LogCaptureFixture) -> None:
    """By the same call as on a GPU, on this CPU; what a GPU does not decode is decoded beforehand."""
    cpu = torch.device("cpu")
    pictures = [place_scene(scene, NVJPEG, mirrored=True).pixels for scene in kinds]
    assert [isinstance(each, Encoded) for each in pictures] == [True, True, True, False, False, False]
    expected = [place_scene(scene, FULL, mirrored=True).pixels for scene in kinds]
    torch.testing.assert_close(decoded(pictures, cpu), expected, rtol=0, atol=0)
    first = pictures[0]
    assert isinstance(first, Encoded)
    broken = [first._replace(jpeg=torch.zeros(100, dtype=torch.uint8)), *pictures[1:]]
    torch.testing.assert_close(decoded(broken, cpu), expected, rtol=0, atol=0)
    assert "3 images" in caplog.text and "decoded by the CPU because nvJPEG failed" in caplog.text


def test_a_jpeg_that_nothing_decodes_is_named(scene: Scene, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(Path(scene.path).read_bytes()[:3000])
    picture = place_scene(Scene(**{**vars(scene), "path": str(damaged)}), NVJPEG).pixels
    assert isinstance(picture, Encoded)
    with pytest.raises(PersonSearchError, match=r"damaged\.jpg cannot be decoded"):
        decoded([picture], torch.device("cpu"))
    with pytest.raises(PersonSearchError, match="is 1003x617 pixels, but scene s says 1003x618"):
        place_scene(Scene(**{**vars(scene), "height": 618}), NVJPEG)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_nvjpeg_shows_what_the_cpu_shows(kinds: list[Scene]) -> None:
    """Also while the GPU is behind: memory that it still reads from is not decoded into."""
    gpu = torch.device("cuda")
    expected = torch.stack(decoded([place_scene(scene, FULL).pixels for scene in kinds], gpu)).int()

    def bring(batch: list[Encoded | torch.Tensor]) -> NetworkInputs[None]:
        return NetworkInputs(torch.stack(decoded(batch, gpu)), None)

    batches = ([place_scene(scene, NVJPEG).pixels for scene in kinds] for _ in range(8))
    kept = []
    for inputs in brought(batches, bring, gpu):
        torch.cuda._sleep(50_000_000)
        kept.append(inputs.images.int())
    assert len(kept) == 8
    for found in kept:
        assert (found.cpu() - expected).abs().float().mean(dim=(1, 2, 3)).max() < 1.5
