"""A backend's rules on a device of its own, made in Python: torch's PrivateUse1 key, CPU memory behind it.

What a mode on the CPU cannot show fails here for real: host and device tensors mixed, work that torch does
another way on a device that is not the CPU. Every operator that reaches the device is judged by the same
``OperatorTable`` as in the emulation. One backend a process; needs torch 2.9 or newer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import torch
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from anyolo.devices import DEVICES, Device
from anyolo.devices.operators import _MEMORY, full_name

COMPOSITE = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
# made of others by torch's own code, and yet they must give a tensor of this device
FORCED = {"_unsafe_view", "_lazy_clone", "_neg_view", "_conj", "detach", "alias", "lift_fresh", "lift"}
# torch can make it of others, which rounds otherwise: a backend that has it uses its own, and for one that
# has not the host makes it of others too (a ReLU near zero makes a thousandth of the last bit)
SILU_BACKWARD = "aten::silu_backward"
BY_HAND = {
    "_copy_from", "_copy_from_and_resize", "_local_scalar_dense", "empty.memory_format", "empty_strided",
    "resize_", "convolution_overrideable", "convolution_backward_overrideable",
}  # fmt: skip


class State:
    """The one device of this process."""

    name = ""
    table = None
    calls: ClassVar[Counter] = Counter()
    unsupported: ClassVar[Counter] = Counter()
    fallback: ClassVar[Counter] = Counter()
    libraries: ClassVar[list] = []


class OnDevice(torch.Tensor):
    """A tensor of the device. ``raw`` is its memory."""

    @staticmethod
    def __new__(cls, raw):
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            layout=raw.layout, device=torch.device(State.name, 0), requires_grad=False,
        )  # fmt: skip
        made.raw = raw
        return made

    def __init__(self, raw):
        pass

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        with torch._C._DisableTorchDispatch():
            return func(*args, **(kwargs or {}))

    def tolist(self):
        return self.detach().cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )

    __array__ = numpy

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            with torch.no_grad():
                copy = self.detach().clone()
            if getattr(self, "_is_param", False):
                copy = torch.nn.Parameter(copy, self.requires_grad)
            memo[id(self)] = copy.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self):
        return f"OnDevice({self.raw!r}, device='{State.name}:0')"


def install(backend: str) -> type[Device]:
    """Make the device; ``open_device("strict")`` opens it. A process can have one."""
    kind = DEVICES.get(backend)
    State.name, State.table = f"strict{backend}", kind.operators()
    _setup_privateuseone_for_python_backend(State.name, backend_module=_Module())
    library = torch.library.Library("aten", "IMPL")
    State.libraries.append(library)
    own = {
        "_copy_from": _copy_from, "_copy_from_and_resize": _copy_from_and_resize,
        "_local_scalar_dense": _number, "empty.memory_format": _empty, "empty_strided": _empty_strided,
        "resize_": _resize, "convolution_overrideable": _convolution,
        "convolution_backward_overrideable": _convolution_backward,
    }  # fmt: skip
    for name, function in own.items():
        library.impl(name, function, "PrivateUse1")
    for name in torch._C._dispatch_get_all_op_names():
        if (func := _to_register(name)) is not None:
            library.impl(name[6:], _judged(func), "PrivateUse1")
    if not _is_native(SILU_BACKWARD):
        silu_backward = torch.ops.aten.silu_backward.default
        library.impl("silu_backward", silu_backward.decompose, "CPU", allow_override=True)
    DEVICES._table["strict"] = "strict:StrictDevice"
    StrictDevice.profile = replace(kind.profile, name="strict", torch_type=State.name, pin_memory=False)
    StrictDevice.backend = kind
    return StrictDevice


class StrictDevice(Device):
    backend: type[Device]

    @classmethod
    def operators(cls):
        return cls.backend.operators()


class _Module(_DummyBackendModule):
    def synchronize(self, device=None):
        pass

    def set_device(self, device):
        pass

    def get_rng_state(self, device=0):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=0):
        torch.set_rng_state(state)


def _to_register(name):
    """The operator, unless torch makes it of others on a device that has no kernel for it."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    base, _, overload = name[6:].partition(".")
    is_made_of_others = has(name, "CompositeImplicitAutograd") and name != SILU_BACKWARD
    if not name.startswith("aten::") or name[6:] in BY_HAND or is_made_of_others:
        return None
    try:
        func = getattr(getattr(torch.ops.aten, base), overload or "default")
    except AttributeError:
        return None
    is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
    is_composite = any(has(name, key) for key in COMPOSITE)
    # what moves memory about keeps torch's way, which ends in _copy_from
    is_listed = _is_native(name) and base not in _MEMORY
    return func if not is_composite or is_view or is_listed or base in FORCED else None


def _is_native(name):
    return State.table.native is not None and name in State.table.native


def _judged(func):
    return lambda *args, **kwargs: _call(func, *args, **kwargs)


def _call(func, *args, **kwargs):
    name = full_name(func)
    State.calls[name] += 1
    _judge(func, name, args, kwargs)
    for value in tree_iter((args, kwargs)):
        if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice) and value.dim() > 0:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{State.name}:0 and {value.device}! ({name})"
            )
    plain, named = tree_map(_raw, args), tree_map(_raw, kwargs)
    if named.get("device") is not None:
        named["device"] = "cpu"
    named.pop("pin_memory", None)
    result = func(*plain, **named)
    _judge_dtypes(name, result)
    written = [
        args[place] if place < len(args) else kwargs.get(argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info and argument.alias_info.is_write
    ]
    if not written:
        return tree_map(_wrapped, result)
    for value in tree_iter(written):
        if isinstance(value, OnDevice) and value.shape != value.raw.shape:  # an out argument was resized
            value.data = OnDevice(value.raw)
    returns = len(func._schema.returns)
    return None if returns == 0 else written[0] if returns == 1 else tuple(written)


def _judge(func, name, args, kwargs):
    raw_args, raw_kwargs = tree_map(_raw, args), tree_map(_raw, kwargs)
    judgement = State.table.judge(func, raw_args, raw_kwargs)
    if judgement is None or judgement.verdict in {"native", "unknown"}:
        return
    getattr(State, judgement.verdict)[name] += 1
    raise judgement.raised()


def _judge_dtypes(name, values):
    if refused := State.table.judge_dtypes(list(tree_iter(values))):
        State.unsupported[name] += 1
        raise refused.raised()


def _raw(value):
    return value.raw if isinstance(value, OnDevice) else value


def _wrapped(value):
    return OnDevice(value) if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice) else value


def _copy_from(source, target, non_blocking=False):
    State.calls["aten::_copy_from"] += 1
    with torch.no_grad():
        _raw(target).copy_(_raw(source))
    return target


def _copy_from_and_resize(source, target):
    _raw(target).resize_(source.shape).copy_(_raw(source))
    return target


def _number(value):
    State.calls["aten::_local_scalar_dense"] += 1
    return torch.ops.aten._local_scalar_dense(_raw(value))


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    made = torch.empty(size, dtype=dtype, memory_format=memory_format)
    _judge_dtypes("aten::empty", [made])
    return OnDevice(made)


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    made = torch.empty_strided(size, stride, dtype=dtype)
    _judge_dtypes("aten::empty_strided", [made])
    return OnDevice(made)


def _resize(value, size, memory_format=None):
    if list(value.shape) != list(size):
        _raw(value).resize_(size)
        value.data = OnDevice(_raw(value))
    return value


def _convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    State.calls["aten::convolution_overrideable"] += 1
    return OnDevice(
        torch.ops.aten.convolution(
            _raw(x), _raw(weight), _raw(bias), stride, padding, dilation, transposed, output_padding, groups
        )
    )


def _convolution_backward(
    grad, x, weight, stride, padding, dilation, transposed, output_padding, groups, mask
):
    State.calls["aten::convolution_backward_overrideable"] += 1
    biases = [weight.shape[0]]
    found = torch.ops.aten.convolution_backward(
        _raw(grad), _raw(x), _raw(weight), biases, stride, padding, dilation, transposed, output_padding,
        groups, mask,
    )  # fmt: skip
    return tree_map(_wrapped, found)
