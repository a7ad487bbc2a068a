"""Every operator that PyTorch runs, forward and backward, seen as the card sees it.

A real card refuses tensors of the host, but for scalars (0-d) in elementwise operators, copies, and index tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from card.activity import Activity, DeviceMix
from card.marks import on_card, place, tensors_in
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WITHOUT_KERNEL = frozenset(
    [
        *(
            "_reshape_alias",
            "_unsafe_view",
            "alias",
            "as_strided",
            "detach",
            "diagonal",
            "expand",
            "lift_fresh",
            "narrow",
        ),
        *("permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"),
        *("unbind", "unflatten", "unsqueeze", "view", "view_as_real"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    ]
)
"""Views, and memory that nothing is written into."""

READ_BY_HOST = frozenset(["_local_scalar_dense", "_unique2", "equal", "masked_select", "nonzero", "unique_consecutive"])
"""The host waits for their result: `item()`, `float(x)`, `if x`, and whatever has a shape that depends on numbers."""

INDIFFERENT = frozenset(["_has_compatible_shallow_copy_type", "is_same_size", "set_"])
"""What may be asked of tensors wherever they lie."""

INDEXED = frozenset(["index", "index_put", "index_put_", "_index_put_impl_"])


class CardOperators(TorchDispatchMode):
    """Refuses what a real card refuses, counts what it would be asked to do, and marks what comes out."""

    def __init__(self, activity: Activity):
        super().__init__()
        self._activity = activity

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = list(tensors_in((args, *kwargs.values())))
        cards = [each for each in tensors if on_card(each)]
        name = func._schema.name.split("::")[1]
        if not cards or name in INDIFFERENT:
            return func(*args, **kwargs)
        if name == "copy_":
            self._copy(args[0], args[1], non_blocking=len(args) > 2 and bool(args[2]))
            return func(*args, **kwargs)
        if len(cards) < len(tensors):
            self._require_one_device(func, name, tensors, args)
        generator = kwargs.get("generator")
        if generator is not None and not getattr(generator, "card", False):
            self._activity.refuse(DeviceMix, f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")
        self._count(name, args)
        return _on_card(func(*args, **kwargs))

    def _require_one_device(self, func: Any, name: str, tensors: Sequence[Tensor], args: Sequence[Any]) -> None:
        hosts = [each for each in tensors if not on_card(each)]
        if name in INDEXED and on_card(args[0]):
            indices = [each for each in args[1] if each is not None]
            if all(any(host is index for index in indices) for host in hosts if host.dim()):
                return self._activity.sync("index copied to the card")
        scalars = torch.Tag.pointwise in func.tags or name.startswith("_foreach_")
        if not (scalars and all(host.dim() == 0 for host in hosts)):
            shapes = ", ".join(f"{'cuda' if on_card(each) else 'cpu'} {tuple(each.shape)}" for each in tensors)
            self._activity.refuse(
                DeviceMix,
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                f"({name}: {shapes})",
            )

    def _copy(self, into: Tensor, source: Tensor, non_blocking: bool) -> None:
        if on_card(into) and on_card(source):
            self._activity.launch("copy_")
        elif not non_blocking:
            self._activity.sync("copy to the card" if on_card(into) else "copy to the host")

    def _count(self, name: str, args: Sequence[Any]) -> None:
        masks = name in INDEXED and any(each is not None and each.dtype == torch.bool for each in args[1])
        if name in READ_BY_HOST or masks:
            self._activity.sync(name)
        if name not in WITHOUT_KERNEL:
            self._activity.launch(name)


def _on_card(output: Any) -> Any:
    for each in tensors_in((output,)):
        place(each)
    return output
