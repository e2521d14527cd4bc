"""How views are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdprune.data import views
from kdprune.data.counter import STUDENT
from kdprune.data.recipe import Recipe
from kdprune.data.size import Size, size_of, written


@dataclass(frozen=True)
class ViewSettings:
    """All that a view depends on, beside the sample: it decides which cached targets belong together.

    Attributes:
        recipe: the augmentation.
        size: of the view in pixels: the side of a square, or height and width.
        seed: of the run.
        fill: mean colour of the data set, for cutout and random erasing; its length is the number of channels.
        stored: made of the decoded store and not by workers, who cut boxes out of images of any size.
        role: of the model that is trained on the views; another role draws other views.
        interpolation: how images are scaled: as the student wants them.
    """

    recipe: Recipe
    size: Size
    seed: int
    fill: tuple[int, ...]
    stored: bool
    role: str = STUDENT
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", size_of(self.size))

    def key(self) -> dict[str, Any]:
        """What is the same for two settings exactly if their views are; JSON values, for the key of an artefact."""
        size = self.size if isinstance(self.size, int) else list(self.size)
        versions = {"version": views.VIEWS_VERSION, **({} if self.stored else {"cutting": views.CUTTING_VERSION})}
        return {**asdict(self), "size": size, "fill": list(self.fill), **versions}

    def __str__(self) -> str:
        role = "" if self.role == STUDENT else f", of the {self.role}"
        scaled = f"{written(self.size)} px, {self.interpolation}"
        return f"{self.recipe}, {scaled}, {'stored' if self.stored else 'decoded'}, filled with {self.fill}{role}"
