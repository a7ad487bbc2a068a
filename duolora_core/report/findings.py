"""What a merge did and what to try next, in plain words, from the numbers of a report.

Each rule is one function that has something to say or not. A hint is given only where the numbers are far from usual:
an artist who reads three of them should find three things worth doing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..merge.overlap import BlockOverlap, whole_overlap
from ..merge.statistics import BlockGates
from .block_rows import block_label

COLLAPSED = 0.1  # share of active rank components below which a role is as good as gone
FADED = 0.5  # share of a LoRA's strength below which it is called weak, if the other has kept 1.5 times as much
UNMOVED = 0.02  # mean masks that are nowhere further from 1 have hardly been trained
UNEQUAL = 3.0  # one LoRA this many times as strong as the other
OVERLAPPING, UNRELATED = 0.25, 0.1  # cosines; two LoRAs of different things rarely reach 0.1
FEWEST_STEPS = 30  # losses of single steps vary too much to call fewer of them a trend

_SMALL = {"a", "an", "the", "in", "of", "on", "at", "with", "and", "by", "for", "is", "it", "to"}
_COMMON = _SMALL | {"style", "photo", "picture", "painting", "image"}


@dataclass(frozen=True)
class Finding:
    """One sentence or two: a `fact`, or a `hint` at something that deserves another try."""

    kind: Literal["fact", "hint"]
    text: str


@dataclass(frozen=True)
class Prompts:
    """What the two LoRAs and the merge were trained with; empty where it is not known."""

    content: str = ""
    style: str = ""
    combined: str = ""


def findings(
    losses: Mapping[str, Sequence[float]],
    blocks: Sequence[BlockGates],
    overlaps: Sequence[BlockOverlap],
    prompts: Prompts | None = None,
) -> list[Finding]:
    """All that is worth telling, facts before hints.

    Args:
        losses: "total" and its terms, one number a step; empty for a merge that was not trained here
        blocks, overlaps: empty for a combination, which has no masks of its own
    """
    if not blocks or not overlaps:
        text = "This merge has no masks of its own: it combines others, or its blocks were turned. Connect the merges "
        return [Finding("fact", text + "that it came from.")]
    whole = whole_overlap(overlaps)
    found = [
        _kept(whole, overlaps),
        _directions(whole, overlaps),
        *(_collapsed(role, blocks) for role in ("content", "style")),
        _faded(whole, blocks),
        _unequal(whole),
        _unmoved(losses, blocks),
        _loss(losses),
        _prompts(prompts or Prompts()),
    ]
    return sorted((finding for finding in found if finding), key=lambda finding: finding.kind)


def _kept(whole: BlockOverlap, overlaps: Sequence[BlockOverlap]) -> Finding | None:
    parts: list[str] = []
    for role, total, shares in (
        ("content", whole.content_kept, {each.name: each.content_kept for each in overlaps}),
        ("style", whole.style_kept, {each.name: each.style_kept for each in overlaps}),
    ):
        known = {name: share for name, share in shares.items() if share is not None}
        if total is not None and known:
            least = min(known, key=lambda name: known[name])
            parts.append(
                f"the {role} keeps {total:.0%} of its strength, least in {block_label(least)} ({known[least]:.0%})"
            )
    return Finding("fact", f"In the merge {', and '.join(parts)}.") if parts else None


def _directions(whole: BlockOverlap, overlaps: Sequence[BlockOverlap]) -> Finding | None:
    cosine = whole.before.cosine
    if cosine is None:
        return None
    known = {each.name: each.before.cosine for each in overlaps if each.before.cosine is not None}
    furthest = max(known, key=lambda name: abs(known[name]))
    where = f"{block_label(furthest)} (cosine {known[furthest]:.2f})"
    if abs(known[furthest]) < UNRELATED:
        text = f"The two LoRAs change the model in nearly unrelated directions (cosine {cosine:.2f}), as is usual."
        return Finding("fact", text)
    if abs(known[furthest]) < OVERLAPPING:
        return Finding("fact", f"The two LoRAs overlap a little, most in {where}.")
    if known[furthest] > 0:
        text = f"The two LoRAs do much the same in {where}, so that the sum overdoes it. If pictures look overcooked, "
        return Finding("hint", text + "lower style_strength, or try layer_prior_weight 0.3 to 1.")
    text = f"The two LoRAs work against each other in {where}. Try layer_prior_weight 0.3 to 1, so that each of them "
    return Finding("hint", text + "gets blocks of its own.")


def _collapsed(role: str, blocks: Sequence[BlockGates]) -> Finding | None:
    active, rank = (sum(getattr(block, f"{role}_{what}") for block in blocks) for what in ("active", "rank"))
    if active >= COLLAPSED * rank:
        return None
    text = f"The {role} masks have nearly closed ({active} of {rank} rank components left): the {role} will hardly "
    return Finding("hint", text + "show. Lower layer_prior_weight or the learning rate and merge again.")


def _faded(whole: BlockOverlap, blocks: Sequence[BlockGates]) -> Finding | None:
    if any(_collapsed(role, blocks) for role in ("content", "style")):
        return None
    kept = {"content": whole.content_kept, "style": whole.style_kept}
    known = {role: share for role, share in kept.items() if share is not None}
    if len(known) < 2:
        return None
    weak, strong = sorted(known, key=lambda role: known[role])
    if known[weak] >= FADED or known[strong] < 1.5 * known[weak]:
        return None
    text = f"The {weak} has faded: {known[weak]:.0%} of its strength is left, of the {strong} {known[strong]:.0%}. "
    return Finding("hint", text + f"Raise {weak}_strength on Apply Merged LoRA, or lower layer_prior_weight.")


def _unequal(whole: BlockOverlap) -> Finding | None:
    content, style = whole.before.content**0.5, whole.before.style**0.5
    if min(content, style) == 0 or max(content, style) < UNEQUAL * min(content, style):
        return None
    strong, weak = ("content", "style") if content > style else ("style", "content")
    ratio = max(content, style) / min(content, style)
    text = f"The {strong} LoRA is {ratio:.1f} times as strong as the {weak} LoRA. If the {weak} drowns, lower the "
    return Finding("hint", text + f"strength on the {strong} loader.")


def _unmoved(losses: Mapping[str, Sequence[float]], blocks: Sequence[BlockGates]) -> Finding | None:
    means = [
        mean for b in blocks for mean, rank in ((b.content_mean, b.content_rank), (b.style_mean, b.style_rank)) if rank
    ]
    if not means or max(abs(mean - 1) for mean in means) > UNMOVED:
        return None
    text = "The masks have hardly moved from 1, so this is nearly the plain sum of both LoRAs. "
    more = (
        "Train more steps, or raise the learning rate."
        if losses.get("total")
        else "They were saved after a short training."
    )
    return Finding("hint", text + more)


def _loss(losses: Mapping[str, Sequence[float]]) -> Finding | None:
    total = losses.get("total", ())
    if len(total) < FEWEST_STEPS:
        return None
    third = len(total) // 3
    first, last = sum(total[:third]) / third, sum(total[-third:]) / third
    if last < first:
        return Finding(
            "fact", f"The loss fell by {1 - last / first:.0%} from the first third of the steps to the last."
        )
    text = "The loss has not fallen from the first third of the steps to the last. Steps differ much by chance, so try "
    return Finding("hint", text + "another seed or more steps first; if it rises every time, lower the learning rate.")


def shares_a_word(combined: str, prompt: str) -> bool:
    """Whether a combined prompt has any telling word of a LoRA's own; true as well where there is none to share."""
    telling, said = _words(prompt) - _COMMON, _words(combined)
    return not (telling and said) or bool(telling & said)


def _prompts(prompts: Prompts) -> Finding | None:
    """A combined prompt without any telling word of one of the two prompts."""
    for role, prompt in (("content", prompts.content), ("style", prompts.style)):
        if not shares_a_word(prompts.combined, prompt):
            text = f"The combined prompt has no word of the {role} prompt '{prompt.strip()}'. Its trigger words are "
            return Finding("hint", text + "probably missing: put them in and merge again.")
    return None


def _words(prompt: str) -> set[str]:
    return set(re.findall(r"\w+", prompt.lower()))
