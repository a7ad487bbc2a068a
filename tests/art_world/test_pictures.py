"""The art world's pictures: the committed file, its licences, the splits, and nothing novel in the training."""

from __future__ import annotations

import torch

from benchmarks.art_world.batches import draw_batch
from benchmarks.art_world.draw import LICENCES, licences, wanted
from benchmarks.art_world.model import decode_latent
from benchmarks.art_world.names import BACKGROUNDS, CONTENTS, NAMELESS, SPLITS, STYLES, labels
from benchmarks.art_world.pictures import SIZE, drawings, has_ground, indexed, named, true_pictures
from benchmarks.art_world.restyle import HANDS, RESTYLINGS, over, rgb
from benchmarks.art_world.wild import alike, known_subjects, named_hands, strangers
from benchmarks.word_model import noise_levels


def test_the_file_holds_what_the_script_draws() -> None:
    held = drawings()
    assert list(held.keys) == [f"{style}/{subject}" for style, subject in wanted()]
    assert held.colors.shape == held.alphas.shape == (len(held.keys), SIZE, SIZE)
    assert int(held.alphas.max()) == 15


def test_no_drawing_is_empty_and_no_two_known_subjects_are_one() -> None:
    assert bool((drawings().alphas.flatten(1).float().mean(1) > 1).all())
    flat = named()[:, 0].float().flatten(1)
    apart = torch.cdist(flat, flat) + 1e9 * torch.eye(len(flat))
    assert float(apart.min()) > 1000


def test_every_set_is_in_the_licences() -> None:
    assert LICENCES.read_text(encoding="utf-8") == licences()


def test_the_splits_are_large_enough_and_apart() -> None:
    for table, sizes in ((CONTENTS, (150, 8, 8)), (STYLES, (6, 2, 2))):
        parts = [{table[label].looks for label in labels(table, split)} for split in SPLITS]
        assert all(len(part) >= size for part, size in zip(parts, sizes, strict=True))
        assert sum(len(part) for part in parts) == len(set().union(*parts)) == len(table)
    assert not {entry.looks for entry in CONTENTS} & set(NAMELESS.split())


def test_every_word_is_one_word_and_no_two_are_the_same() -> None:
    """A host finds words by `\\w+` and has one table for all three kinds."""
    words = [*(entry.name for entry in (*CONTENTS, *STYLES)), *BACKGROUNDS]
    assert len(set(words)) == len(words)
    assert all(word.isidentifier() for word in words)


def test_nothing_novel_is_trained_on() -> None:
    """Neither by name nor among the nameless pictures."""
    known = {entry.looks for entry in CONTENTS if entry.split == "known"}
    novel = {entry.looks for entry in CONTENTS} - known
    assert {CONTENTS[place].looks for place in known_subjects()} == known
    assert all(STYLES[place].split == "known" for place in named_hands())
    assert alike().shape[1] == len(known) + len(NAMELESS.split())
    assert strangers().shape[1] == len(NAMELESS.split())
    unnamed = {key for key in drawings().keys if key.split("/")[0] not in {style.looks for style in STYLES}}
    assert not {key.split("/")[1] for key in unnamed} & novel
    batch = draw_batch(200, noise_levels(), torch.Generator().manual_seed(1))
    for prompt in batch.prompts:
        assert prompt.content is None or CONTENTS[prompt.content].split == "known"
        assert prompt.style is None or STYLES[prompt.style].split == "known"


def test_a_fully_named_prompt_comes_with_its_real_drawing() -> None:
    batch = draw_batch(64, noise_levels(), torch.Generator().manual_seed(2))
    full = [i for i, prompt in enumerate(batch.prompts) if None not in vars(prompt).values()]
    assert len(full) > 10
    words = torch.tensor([[p.content, p.style, p.background] for p in (batch.prompts[i] for i in full)])
    assert torch.allclose(decode_latent(batch.latents[full]), true_pictures(*words.unbind(1)), atol=1e-5)


def test_a_background_shows_unless_the_style_has_a_ground() -> None:
    styles = torch.arange(len(STYLES))
    first, second = (true_pictures(torch.zeros_like(styles), styles, torch.full_like(styles, b)) for b in (0, 5))
    assert ((first == second).flatten(1).all(1) == has_ground()).all()
    assert {STYLES[place].looks for place in torch.nonzero(~has_ground())[:, 0].tolist()} == set(HANDS)


def test_restylings_are_exact() -> None:
    """One drawing gives one picture, inside [0, 1]; nothing drawn gives the ground alone."""
    drawing = torch.zeros(4, 256, 256)
    drawing[:, 60:200, 80:180] = torch.tensor([0.9, 0.3, 0.1, 1.0]).view(4, 1, 1)
    for restyled in RESTYLINGS.values():
        once = restyled(drawing)
        assert once.shape == (3, 256, 256)
        assert torch.equal(once, restyled(drawing))
        assert 0 <= float(once.min()) <= float(once.max()) <= 1
        assert not torch.equal(once, restyled(torch.zeros_like(drawing)))
    assert torch.allclose(RESTYLINGS["gold"](torch.zeros_like(drawing)), rgb("6E1423").expand(3, 256, 256))


def test_few_colours_are_enough() -> None:
    """A drawing with a soft edge comes back to a few hundredths."""
    ramp = torch.linspace(0, 1, SIZE).expand(SIZE, SIZE)
    drawing = torch.stack([ramp, ramp.T, ramp, torch.ones_like(ramp)])
    colors, palette, alpha = (torch.from_numpy(part) for part in indexed(drawing))
    again = torch.cat([palette.float()[colors.long()].movedim(-1, 0) / 255, alpha[None].float() / 15])
    assert float((over(again, rgb("FFFFFF")) - over(drawing, rgb("FFFFFF"))).abs().mean()) < 0.06
