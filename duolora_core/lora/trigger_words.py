"""What others wrote down of how a LoRA is prompted: its trigger words, and a prompt where the artist gives none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..files.sanitize import json_of, sanitize

_LONGEST = 300
"""Characters of a prompt; CLIP reads about as many at once."""
_MOST_TAGS = 12
_WHOLE = 4
"""Words from which on a prompt says what is to be seen; fewer are trigger words alone."""
_TECHNICAL = re.compile(
    r"v?\d+|e\d+|r\d+|(sd)?xl|sdxl\d*|pony|pdxl|illustrious|ill?|noob(ai)?|lora|lycoris|locon|dora|"
    r"(epoch|step|rank|dim|alpha)\d*|fp16|bf16|final|last",
    re.IGNORECASE,
)
"""Parts of a file's name that say how it was made, and not what it paints."""
_SAYS_NOTHING = {"style", "content", "subject", "character", "concept", "merged", "test", "new", "my", "the", "a"}


@dataclass(frozen=True)
class FilePrompt:
    """A prompt that a LoRA's file gives by itself, and what it is made of, in words."""

    text: str
    source: str

    @property
    def is_whole(self) -> bool:
        """Whether it may say all that is to be seen: a merge learns much less from trigger words alone."""
        return len(re.findall(r"\w+", self.text)) >= _WHOLE


def trigger_words(metadata: Mapping[str, str], most: int = 3, beside: Sequence[str] = ()) -> list[str]:
    """Trigger words: the phrase of the model spec in the metadata, else those beside the file, else the commonest tags.

    They may become a prompt, so they are bounded, and what a prompt would take for the name of a file is none.
    """
    phrase = metadata.get("modelspec.trigger_phrase", "")
    if phrase.strip():
        return _shown([phrase])
    return _shown(beside or [tag for tag, _ in _tags(metadata)[:most]])


def file_prompt(name: str, metadata: Mapping[str, str], beside: Sequence[str] = ()) -> FilePrompt | None:
    """The trigger phrase, else the author's trigger words, else the tags of the training pictures, else the name.

    Trigger words that are no whole prompt by themselves are followed by the tags that the training pictures have in
    common. None where not even the name says anything.

    Args:
        name: of the file
        beside: trigger words as `beside.words_beside` finds them
    """
    in_metadata = bool(metadata.get("modelspec.trigger_phrase", "").strip())
    words = trigger_words({**metadata, "ss_tag_frequency": "{}"}, beside=beside)
    sources = ["its trigger phrase" if in_metadata else "the trigger words beside the file"] if words else []
    prompt = ", ".join(words)
    if not FilePrompt(prompt, "").is_whole:
        tags = [tag for tag in _shown(_common(_tags(metadata))) if tag.lower() not in prompt.lower()]
        words += tags
        sources += ["the commonest tags of its training pictures"] if tags else []
    if not words:
        words, sources = _shown([_in_words(name)]), ["its file name, as it names no trigger words"]
    return FilePrompt(sanitize(", ".join(words), _LONGEST), " and ".join(sources)) if words else None


def _shown(words: Iterable[str]) -> list[str]:
    shown = (sanitize(word.strip(), _LONGEST) for word in words)
    return [word for word in shown if word and "embedding:" not in word.lower()]


def _tags(metadata: Mapping[str, str]) -> list[tuple[str, int]]:
    """The commonest first, of {folder: {tag: count}}: free text by many trainers, and anything else in it is no tag."""
    tags: Counter[str] = Counter()
    try:
        for folder in json_of(metadata.get("ss_tag_frequency", "{}")).values():
            tags.update({str(tag).strip(): int(count) for tag, count in folder.items()})
    except (ValueError, AttributeError, TypeError, OverflowError):
        return []
    return tags.most_common()


def _common(tags: Sequence[tuple[str, int]]) -> list[str]:
    """Those that stand at least half as often as the commonest one: what most of the pictures show."""
    return [tag for tag, count in tags[:_MOST_TAGS] if 2 * count >= tags[0][1]]


def _in_words(name: str) -> str:
    """`SksDog_XL-v2.safetensors` as `Sks Dog`; nothing if the name says only how the file was made."""
    stem = re.sub(r"\.safetensors$", "", name.replace("\\", "/").rpartition("/")[2], flags=re.IGNORECASE)
    parts = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", stem))
    words = [part for part in parts if not _TECHNICAL.fullmatch(part)]
    return " ".join(words) if {word.lower() for word in words} - _SAYS_NOTHING else ""
