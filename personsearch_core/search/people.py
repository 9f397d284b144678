"""The people that were found in one picture."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from personsearch_core.boxes import Boxes
from personsearch_core.drawing import as_data_uri, fitted, outline

_SHOWN_SIZE = (880, 660)


@dataclass(frozen=True)
class Person:
    """One person in a picture.

    Attributes
    ----------
    number
        From 1, best first.
    box
        x1, y1, x2, y2 in pixels of the picture.
    score
        Detection score, from 0 to 1.
    embedding
        (D,) float32.

    Examples
    --------
    >>> import torch
    >>> Person(number=1, box=(10.0, 20.0, 50.0, 120.0), score=0.9, embedding=torch.zeros(256))
    Person(number=1, box=(10.0, 20.0, 50.0, 120.0), score=0.9)
    """

    number: int
    box: tuple[float, float, float, float]
    score: float
    embedding: Tensor = field(repr=False, compare=False)

    def as_json(self) -> dict[str, object]:
        """The person as `search --json` lists it."""
        return {"person": self.number, "box": list(self.box), "score": self.score}


class FoundPeople(tuple[Person, ...]):
    """The people of one picture, best first; in a notebook it draws them, outlined and numbered.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> picture = torch.zeros(3, 120, 90, dtype=torch.uint8)
    >>> boxes = np.array([[10, 20, 50, 110]], np.float32)
    >>> people = FoundPeople.of(picture, boxes, scores=torch.tensor([0.9]), embeddings=torch.zeros(1, 256))
    >>> len(people), people[0].box, people.draw().size
    (1, (10.0, 20.0, 50.0, 110.0), (90, 120))
    """

    pixels: Tensor
    """The picture, uint8 (3, H, W)."""

    @classmethod
    def of(cls, pixels: Tensor, boxes: Boxes, scores: Tensor, embeddings: Tensor) -> FoundPeople:
        """People of a picture from what a network found in it."""
        found = cls(
            Person(number, (x1, y1, x2, y2), score, embedding)
            for number, ((x1, y1, x2, y2), score, embedding) in enumerate(
                zip(boxes.tolist(), scores.tolist(), embeddings.float().cpu(), strict=True), 1
            )
        )
        found.pixels = pixels
        return found

    def picture(self) -> Image.Image:
        """The picture without outlines."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).cpu().numpy())

    def draw(self) -> Image.Image:
        """The picture with all people outlined and numbered."""
        return outline(
            self.picture(), [person.box for person in self], [str(person.number) for person in self]
        )

    def _repr_html_(self) -> str:
        shown = as_data_uri(fitted(self.draw(), _SHOWN_SIZE))
        count = "1 person" if len(self) == 1 else f"{len(self)} people"
        return f'<figure><img src="{shown}" alt="{count}"><figcaption>{count}</figcaption></figure>'
