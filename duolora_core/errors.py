"""The one exception family. Messages are written for an artist: what is wrong, where, and how to fix it."""

from __future__ import annotations


class DuoLoraError(Exception):
    """Root of every error that this library raises on purpose."""


class LoraFileError(DuoLoraError):
    """A LoRA file cannot be read, is damaged, or holds a kind of adapter that is not merged."""


class ModelMismatchError(DuoLoraError):
    """A LoRA and the model do not fit together: wrong architecture, wrong shapes, nothing in common."""


class SettingsError(DuoLoraError):
    """A setting is outside its meaning: an unknown block name, a threshold above one, no training picture."""


class TrainingError(DuoLoraError):
    """Training cannot go on."""


class NotFiniteError(TrainingError):
    """A loss or a gradient is not a finite number. What was trained keeps the best, or the last, of its good states."""


class OutOfMemoryError(DuoLoraError):
    """The device has too little memory for a training, even under the smallest plan."""


class FileTakenError(DuoLoraError):
    """A file of that name exists already; it is never replaced."""
