"""Pictures of contents in styles: seeded, whole, and each part doing its own work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.shapes_world.looks import LOOKS, palette_table
from benchmarks.shapes_world.names import CONTENTS, SPLITS, STYLES, Entry, labels
from benchmarks.shapes_world.render import SIZE, Pose, paint, render, scene

MIDDLE = Pose(torch.zeros(1), torch.zeros(1), torch.full((1,), 10.0), torch.zeros(1))
WHITE, BLACK = torch.ones(3), -torch.ones(3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def silhouettes(labels: Tensor, pose: Pose) -> Tensor:
    """White shapes on black, without texture or outline: coverage (n, 32, 32) in [0, 1]."""
    what = scene(labels, torch.full_like(labels, [s.name for s in STYLES].index("ink")))
    palette = torch.stack([WHITE, WHITE, BLACK, BLACK]).expand(len(labels), 4, 3)
    pose = Pose(*(part.expand(len(labels)) for part in vars(pose).values()))
    return (paint(replace(what, palette=palette), pose)[:, 0] + 1) / 2


def overlap(first: Tensor, second: Tensor) -> float:
    return (torch.minimum(first, second).sum() / torch.maximum(first, second).sum()).item()


@pytest.mark.parametrize("entries", [CONTENTS, STYLES])
def test_names_are_single_words_used_once_and_every_split_has_its_share(entries: tuple[Entry, ...]) -> None:
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names)
    assert all(name.isalnum() and name.islower() for name in names)
    assert [len(labels(entries, split)) for split in SPLITS] == [14, 4, 4]
    assert sorted(labels(entries, *SPLITS)) == list(range(len(entries)))


def test_no_word_is_both_a_content_and_a_style() -> None:
    assert not {e.name for e in CONTENTS} & {e.name for e in STYLES}


def test_novel_styles_have_colours_and_textures_that_no_known_style_has() -> None:
    known = [LOOKS[e.looks] for e in STYLES if e.split == "known"]
    for entry in STYLES:
        look = LOOKS[entry.looks]
        if entry.split != "known":
            assert look.texture not in {other.texture for other in known}
            assert (look.fill, look.accent) not in {(other.fill, other.accent) for other in known}
            assert look.ground in {other.ground for other in known}
    assert len({look.texture for look in LOOKS.values()}) == len(STYLES)


def test_a_picture_is_32_by_32_between_minus_one_and_one() -> None:
    contents = torch.arange(len(CONTENTS)).repeat_interleave(len(STYLES))
    pictures = render(contents, torch.arange(len(STYLES)).repeat(len(CONTENTS)), seeded())
    assert pictures.shape == (len(CONTENTS) * len(STYLES), 3, SIZE, SIZE)
    assert pictures.dtype == torch.float32
    assert pictures.amin() >= -1
    assert pictures.amax() <= 1
    assert pictures.flatten(1).std(1).amin() > 0.1


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    contents, styles = torch.randint(22, (2, 300), generator=seeded())
    pictures = render(contents, styles, seeded(1))
    assert torch.equal(pictures, render(contents, styles, seeded(1)))
    assert (pictures - render(contents, styles, seeded(2))).abs().mean((1, 2, 3)).amin() > 0.01


def test_no_two_silhouettes_are_alike() -> None:
    everything = torch.arange(len(CONTENTS))
    upright = silhouettes(everything, MIDDLE)
    for first in range(len(CONTENTS)):
        for second in range(first):
            assert overlap(upright[first], upright[second]) < 0.85, (CONTENTS[first], CONTENTS[second])


def test_the_silhouette_does_not_depend_on_the_texture() -> None:
    """A fill painted in one colour covers the same pixels under every texture."""
    styles = torch.arange(len(STYLES))
    what = scene(torch.full_like(styles, 3), styles)
    plain = torch.stack([WHITE, WHITE, BLACK, BLACK]).expand(len(styles), 4, 3)
    pose = Pose(*(part.expand(len(styles)) for part in vars(MIDDLE).values()))
    pictures = paint(replace(what, palette=plain, outline=torch.zeros_like(what.outline)), pose)
    assert torch.allclose(pictures, pictures[:1].expand_as(pictures), atol=1e-6)


def test_every_style_has_its_own_mean_colours() -> None:
    """Far enough that no two styles could be taken for each other from their colours alone."""
    fill, back = palette_table()[:, :2].mean(1), palette_table()[:, 2:].mean(1)  # (styles, 3)
    apart = torch.cdist(fill, fill) + torch.cdist(back, back)
    assert (apart + 9 * torch.eye(len(STYLES))).amin() > 0.5
    assert (fill - back).norm(dim=1).amin() > 0.5
