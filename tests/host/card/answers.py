"""What Python code that asks a tensor for its device, moves it or makes one is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from card.activity import Activity, DeviceMix, GradientCrossing
from card.marks import CARD, means_card, on_card, place, tensors_in
from torch import Tensor
from torch.overrides import TorchFunctionMode

TENSOR: Any = Tensor  # its getters are not in PyTorch's annotations
FILLED_BY_HOST = frozenset(["tensor", "as_tensor", "asarray"])


class CardAnswers(TorchFunctionMode):
    """Tensors with the mark say that they are on cuda:0, and only moves that a program asked for change it."""

    def __init__(self, activity: Activity):
        super().__init__()
        self._activity = activity
        self._answers: dict[Any, Callable[..., Any]] = {
            TENSOR.device.__get__: lambda x, *_: CARD if on_card(x) else real_device(x),
            TENSOR.is_cuda.__get__: lambda x, *_: on_card(x),
            TENSOR.is_cpu.__get__: lambda x, *_: real_device(x).type == "cpu" and not on_card(x),
            Tensor.get_device: lambda x: 0 if on_card(x) else -1,
            TENSOR.grad.__get__: self._grad,
            TENSOR.grad.__set__: self._set_grad,
            Tensor.backward: self._backward,
            Tensor.to: self._to,
            Tensor.cpu: lambda x, **_: self._move(x, False, x.dtype),
            Tensor.cuda: lambda x, *_, **__: self._move(x, True, x.dtype),
            Tensor.type_as: lambda x, other: self._move(x, on_card(other), other.dtype),
            Tensor.copy_: self._copy,
            Tensor.numpy: lambda x, **kwargs: self._host_memory(Tensor.numpy, x, **kwargs),
            Tensor.__array__: lambda x, *args: self._host_memory(Tensor.__array__, x, *args),
            Tensor.tolist: self._tolist,
            Tensor.__deepcopy__: lambda x, memo: place(Tensor.__deepcopy__(x, memo), on_card(x)),
        }

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        answer = self._answers.get(func)
        if answer is not None:
            return answer(*args, **kwargs)
        if kwargs.get("device") is not None:
            return self._made(func, args, kwargs)
        return func(*args, **kwargs)

    def _made(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A factory that was given a device."""
        card, name = means_card(kwargs["device"]), func.__name__
        if args and isinstance(args[0], Tensor) and name in FILLED_BY_HOST:
            return self._move(args[0], card, kwargs.get("dtype") or args[0].dtype)
        if not card:
            return _all(func(*args, **kwargs), False)
        generator = kwargs.get("generator")
        if generator is not None and not getattr(generator, "card", False):
            self._activity.refuse(DeviceMix, f"Expected a 'cuda' device type for generator but found 'cpu' ({name})")
        if name in FILLED_BY_HOST:
            self._activity.sync(f"torch.{name} on the card")
        elif "empty" not in name:
            self._activity.launch(name)
        return _all(func(*args, **kwargs | {"device": torch.device("cpu")}), True)

    def _to(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copy = kwargs.pop("copy", False)
        if len(args) == 4:
            args, copy = args[:3], args[3]
        other = args[0] if args and isinstance(args[0], Tensor) else kwargs.pop("other", None)
        if other is not None:
            return self._move(x, on_card(other), other.dtype, copy=copy)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)  # pyright: ignore
        card = on_card(x) if device is None else means_card(device)
        return self._move(x, card, dtype or x.dtype, copy=copy, non_blocking=non_blocking, layout=layout)

    def _move(
        self,
        x: Tensor,
        card: bool,
        dtype: torch.dtype,
        *,
        copy: bool = False,
        non_blocking: bool = False,
        layout: torch.memory_format | None = None,
    ) -> Tensor:
        here, kept = on_card(x), {} if layout is None else {"memory_format": layout}
        if real_device(x).type != "cpu" or card == here:
            return TENSOR.to(x, dtype, copy=copy, **kept)
        self._require_no_gradient(x)
        if not non_blocking:
            self._activity.sync("copy to the card" if card else "copy to the host")
        return place(TENSOR.to(x, dtype, copy=True, **kept), card)

    def _copy(self, into: Tensor, source: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if on_card(into) != on_card(source):
            self._require_no_gradient(source)
        return Tensor.copy_(into, source, *args, **kwargs)

    def _require_no_gradient(self, x: Tensor) -> None:
        if x.requires_grad and torch.is_grad_enabled():
            self._activity.refuse(GradientCrossing, f"a tensor {tuple(x.shape)} that needs a gradient changes device")

    def _grad(self, x: Tensor, *_: Any) -> Tensor | None:
        grad = TENSOR.grad.__get__(x)
        if grad is not None and on_card(grad) != on_card(x):
            self._activity.refuse(GradientCrossing, f"the gradient of a tensor {tuple(x.shape)} is on the other device")
        return grad

    def _set_grad(self, x: Tensor, grad: Tensor | None) -> None:
        TENSOR.grad.__set__(x, grad)
        self._grad(x)

    def _backward(
        self,
        x: Tensor,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | None = None,
    ) -> None:
        """The engine, called so that this mode is in force inside: for hooks, and for blocks that run again.

        `torch.autograd.backward` would come back here first, and then run without it.
        """
        gradient = torch.ones_like(x) if gradient is None else gradient
        run: Any = torch.autograd.graph._engine_run_backward  # pyright: ignore[reportPrivateUsage]
        keep = create_graph if retain_graph is None else retain_graph
        with self:
            run(
                (x,), (gradient,), keep, create_graph, tuple(inputs or ()), allow_unreachable=True, accumulate_grad=True
            )

    def _host_memory(self, read: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if on_card(x):
            self._activity.refuse(TypeError, "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        return read(x, *args, **kwargs)

    def _tolist(self, x: Tensor) -> Any:
        if on_card(x):
            self._activity.sync("tolist")
        return x.tolist()


def real_device(x: Tensor) -> torch.device:
    return TENSOR.device.__get__(x)


def _all(output: Any, card: bool) -> Any:
    for each in tensors_in((output,)):
        place(each, card)
    return output
