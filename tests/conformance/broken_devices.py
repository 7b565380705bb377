"""Devices that are wrong on purpose, in one thing each: the numbers of a driver with that fault."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anyolo.audit.host import Host

aten = torch.ops.aten
Change = Callable[..., object]


class _Fault(TorchDispatchMode):
    """``change(func, args, kwargs)`` gives another result, or NotImplemented for the right one."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = self.change(func, args, kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


class Broken(Host):
    """The plain CPU, with a fault wherever a program says that it is on the device."""

    def __init__(self, change: Change, *, phases: frozenset[str] | None = None, **facts: object) -> None:
        super().__init__()
        self.change, self.phases = change, phases
        self.profile = replace(Host.profile, **{"name": "broken", "autocast_dtypes": (), **facts})

    @contextmanager
    def region(self, phase):
        if self.phases is not None and phase not in self.phases:
            yield
            return
        with _Fault(self.change):
            yield


def float_times_bool(func, args, kwargs):
    """What DirectML does (microsoft/DirectML issue 737)."""
    if func is aten.mul.Tensor and torch.bool in {x.dtype for x in args if isinstance(x, torch.Tensor)}:
        return args[0].bool() & args[1].bool()
    return NotImplemented


def late_cumsum(func, args, kwargs):
    return func(*args, **kwargs) - args[0] if func is aten.cumsum.default else NotImplemented


def convolution_off(func, args, kwargs):
    return func(*args, **kwargs) * 1.01 if func is aten.convolution.default else NotImplemented


def short_convolution(func, args, kwargs):
    """Factors rounded to 11 bits, as TF32 does."""
    if func is not aten.convolution.default:
        return NotImplemented
    return func(*(x.half().to(x.dtype) if isinstance(x, torch.Tensor) else x for x in args), **kwargs)


def stale_topk(func, args, kwargs):
    """Reads the memory of a strided view as if it were dense."""
    if func is aten.topk.default and not args[0].is_contiguous():
        return func(args[0].as_strided(args[0].shape, args[0].contiguous().stride()), *args[1:], **kwargs)
    return NotImplemented


def signed_bytes(func, args, kwargs):
    if func is aten._to_copy.default and args[0].dtype == torch.uint8:
        return func(args[0].view(torch.int8), **kwargs)
    return NotImplemented


def norm_backward_in_channels_last(func, args, kwargs):
    """pytorch issue 175189."""
    if func is aten.native_batch_norm_backward.default and not args[1].is_contiguous():
        own, weight, bias = func(*args, **kwargs)
        return own * 3, weight + 13, bias
    return NotImplemented


def dense_addcdiv(func, args, kwargs):
    """Does nothing where memory is not plain (pytorch issue 118115)."""
    if func is aten.addcdiv_.default and not args[0].is_contiguous():
        return args[0]
    return NotImplemented


def no_gather(func, args, kwargs):
    if func is aten.gather.default:
        raise NotImplementedError("The operator 'aten::gather' is not implemented for this device")
    return NotImplemented


def crude_sigmoid(func, args, kwargs):
    """A table with 12 bits."""
    if func is aten.sigmoid.default:
        return (func(*args, **kwargs) * 4096).round() / 4096
    return NotImplemented


def nan_silu(func, args, kwargs):
    """0 / 0 far below zero."""
    if func is aten.silu.default:
        return torch.where(args[0] < -2, torch.nan, func(*args, **kwargs))
    return NotImplemented


def dead_layer(shape):
    """The gradient of the convolution whose weight has this shape is all zero."""

    def change(func, args, kwargs):
        if func is aten.convolution_backward.default and tuple(args[2].shape) == shape:
            own, weight, bias = func(*args, **kwargs)
            return own, torch.zeros_like(weight), bias
        return NotImplemented

    return change


def skewed_layer(shape):
    """The gradient of one convolution is a tenth too large."""

    def change(func, args, kwargs):
        if func is aten.convolution_backward.default and tuple(args[2].shape) == shape:
            own, weight, bias = func(*args, **kwargs)
            return own, weight * 1.1, bias
        return NotImplemented

    return change


def forgetful_add(func, args, kwargs):
    """An in-place addition that is lost (use it in the optimizer)."""
    return args[0] if func is aten.add_.Tensor and args[0].dim() == 4 else NotImplemented


def shifted_add(func, args, kwargs):
    """Half a pixel too far (use it in decoding)."""
    return func(*args, **kwargs) + 0.5 if func is aten.add.Tensor else NotImplemented


def wrong_atan(func, args, kwargs):
    return args[0] if func is aten.atan.default else NotImplemented
