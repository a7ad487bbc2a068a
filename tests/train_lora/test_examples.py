"""What a step sees follows from the seed and the step alone, and is fair to every picture and timestep."""

from __future__ import annotations

from collections import Counter

import torch

from duolora_core.train_lora.examples import draw_samples
from lora_trainings import example

SIGMAS = torch.linspace(0.1, 10.0, 50)
PICTURES = [example(1), example(2, (8, 16)), example(3), example(4), example(5, (8, 16))]


def place(latent: torch.Tensor) -> int:
    return next(i for i, picture in enumerate(PICTURES) if picture.latent is latent)


def test_every_picture_leads_once_in_each_round_and_rounds_differ() -> None:
    led = [place(draw_samples(PICTURES, SIGMAS, 1, step, seed=3)[0].example.latent) for step in range(25)]
    rounds = [tuple(led[start : start + 5]) for start in range(0, 25, 5)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in rounds)
    assert len(set(rounds)) > 1


def test_a_batch_holds_one_size_and_repeats_a_picture_only_when_it_must() -> None:
    for step in range(20):
        batch = draw_samples(PICTURES, SIGMAS, 3, step, seed=1)
        assert len({sample.noise.shape for sample in batch}) == 1
        own = Counter(place(sample.example.latent) for sample in batch)
        assert max(own.values()) == (1 if batch[0].noise.shape[2] == 8 else 2)


def test_pictures_are_equally_likely_whatever_shares_their_size() -> None:
    own = Counter(
        place(sample.example.latent) for s in range(400) for sample in draw_samples(PICTURES, SIGMAS, 4, s, 0)
    )
    assert all(abs(count / 1600 - 0.2) < 0.04 for count in own.values()) and len(own) == 5


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    for step in (0, 7, 1000):
        one, again = (draw_samples(PICTURES, SIGMAS, 2, step, seed=5) for _ in range(2))
        assert all(torch.equal(a.noise, b.noise) and a.sigma == b.sigma for a, b in zip(one, again, strict=True))
        for other in (draw_samples(PICTURES, SIGMAS, 2, step + 1, 5), draw_samples(PICTURES, SIGMAS, 2, step, 6)):
            assert not torch.equal(other[0].noise[:, :8, :8], one[0].noise[:, :8, :8])
    assert not torch.equal(
        draw_samples(PICTURES[:1], SIGMAS, 1, 0, 5, "class")[0].noise,
        draw_samples(PICTURES[:1], SIGMAS, 1, 0, 5)[0].noise,
    )


def test_noise_is_normal_and_every_timestep_is_drawn() -> None:
    batch = [sample for step in range(300) for sample in draw_samples(PICTURES[:1], SIGMAS, 4, step, seed=0)]
    noise = torch.stack([sample.noise for sample in batch])
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    levels = Counter(float(sample.sigma) for sample in batch)
    assert set(levels) == set(SIGMAS.tolist())
    assert max(levels.values()) < 3 * min(levels.values())
