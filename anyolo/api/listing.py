"""The verb ``devices``: what is here and can do what, what the rest lacks, what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from anyolo import console
from anyolo.config.load import load
from anyolo.config.schema import DevicesVerb
from anyolo.devices import Backend, Device, DeviceProfile, OperatorTable, look_at, named_backend, survey

GIB = 2**30
PROFILE = (
    "grad_scaler", "float64", "channels_last", "pin_memory", "foreach", "fused", "compile", "trains",
    "dist_backend",
)  # fmt: skip
NOT_LISTED = {"fallback": "run on the CPU instead, with a warning", "unsupported": "are refused"}
SEVERITY = {"error": "refused", "broken": "wrong result", "fallback": "on the CPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesResult:
    """``backends`` one mapping each; ``facts`` what is known of one backend's operators, where asked for."""

    backends: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] | None = None
    ok: bool = True

    def to_json(self) -> dict[str, Any]:
        facts = {} if self.facts is None else {"facts": self.facts}
        return {"torch": torch.__version__, "devices": list(self.backends), **facts}


def run_devices(values: Mapping[str, Any]) -> DevicesResult:
    """Settings as in ``anyolo devices --help``."""
    asked = load(DevicesVerb, values).config.device
    backends = [look_at(named_backend(asked))] if asked else survey()
    shown = [describe(backend) for backend in backends]
    _tell(shown)
    if not asked:
        return DevicesResult(backends=shown)
    kind = backends[0].kind
    table = kind.operators() if kind is not None else None
    facts = facts_of(table) if table is not None else None
    _tell_facts(backends[0].name, facts)
    return DevicesResult(backends=shown, facts=facts)


def describe(backend: Backend) -> dict[str, Any]:
    """A backend as a mapping of plain values; what needs the hardware is empty where it is not here."""
    kind = backend.kind
    common = {"backend": backend.name, "available": not backend.problem, "problem": backend.problem}
    if kind is None:
        return {**common, "needs": "", "devices": []}
    profile = kind.profile
    return {
        **common,
        "needs": kind.advice(),
        "devices": [] if backend.problem else [_device(kind(index)) for index in range(kind.count())],
        "autocast_dtypes": [_plain(dtype) for dtype in profile.autocast_dtypes],
        **{key: getattr(profile, key) for key in PROFILE},
        "limits": {
            key: profile.limit(key) for key in ("amp", "half", "compile", "train") if _lacks(profile, key)
        },
        "can_be_emulated": kind.operators() is not None,
        "sources": list(profile.sources),
    }


def facts_of(table: OperatorTable) -> dict[str, Any]:
    """An operator table as a mapping of plain values."""
    return {
        "source": table.source,
        "native": None if table.native is None else len(table.native),
        "unlisted": table.unlisted,
        "unlisted_message": table.unlisted_message,
        "denied_dtypes": {_plain(dtype): text for dtype, text in table.denied_dtypes.items()},
        "rules": [
            {
                "severity": rule.severity,
                "operators": list(rule.operators),
                "when": rule.condition,
                "message": rule.message,
                "source": rule.source,
                "confidence": rule.confidence,
            }
            for rule in table.rules
        ],
    }


def _device(device: Device) -> dict[str, Any]:
    memory = device.memory()
    return {
        "name": f"{device.profile.name}:{device.index}",
        "hardware": device.hardware(),
        "free_bytes": memory.free_bytes if memory else None,
        "total_bytes": memory.total_bytes if memory else None,
    }


def _tell(backends: Sequence[Mapping[str, Any]]) -> None:
    report = console.current()
    here = [backend for backend in backends if backend["available"]]
    if here:
        rows = zip(*(_abilities(backend).items() for backend in here), strict=True)
        report.table(
            f"here, with torch {torch.__version__}",
            ("", *(f"device={backend['backend']}" for backend in here)),
            [(cells[0][0], *(text for _, text in cells)) for cells in rows],
        )
    away = [backend for backend in backends if not backend["available"]]
    if away:
        report.table(
            "not here",
            ("device", "what is missing, and what it takes"),
            [(backend["backend"], _missing(backend)) for backend in away],
        )
    if known := [backend["backend"] for backend in backends if backend.get("can_be_emulated")]:
        report.line("device=emulate:NAME runs on this CPU under the rules of NAME, which may be")
        report.line(", ".join(known))


def _abilities(backend: Mapping[str, Any]) -> dict[str, str]:
    """What an available backend can do, in words."""
    limits, dtypes = backend["limits"], backend["autocast_dtypes"]
    if "float16" not in dtypes:
        scaling = "not needed without float16"
    else:
        scaling = "torch's" if backend["grad_scaler"] else "anyolo's own, in float32"
    updates = "fused" if backend["fused"] else "many tensors at once" if backend["foreach"] else "one by one"
    return {
        "devices": "\n".join(_in_words(device) for device in backend["devices"]),
        "mixed precision": ", ".join(dtypes) or f"no: {limits['amp']}",
        "loss scaling": scaling,
        "training": f"no: {limits['train']}" if "train" in limits else "yes",
        "torch.compile": f"no: {limits['compile']}" if "compile" in limits else "yes",
        "float64": _yes(backend["float64"]),
        "channels last": _yes(backend["channels_last"]),
        "pinned memory": _yes(backend["pin_memory"]),
        "optimizer updates": updates,
        "process group": backend["dist_backend"] or "none",
    }


def _missing(backend: Mapping[str, Any]) -> str:
    needs = f"\nit takes: {backend['needs']}" if backend["needs"] else ""
    return f"{backend['problem']}{needs}"


def _in_words(device: Mapping[str, Any]) -> str:
    words = [device["name"], *([device["hardware"]] if device["hardware"] else [])]
    if device["total_bytes"] is not None:
        words.append(f"{device['free_bytes'] / GIB:.1f} of {device['total_bytes'] / GIB:.1f} GiB free")
    return ", ".join(words)


def _tell_facts(name: str, facts: Mapping[str, Any] | None) -> None:
    report = console.current()
    if facts is None:
        report.line(f"No list of what {name} cannot do is kept: it runs torch's operators.")
        return
    native = "no list was published" if facts["native"] is None else f"{facts['native']} operators"
    rest = "are not known" if facts["native"] is None else NOT_LISTED[facts["unlisted"]]
    rows = [("known from", facts["source"]), ("native", native), ("all others", rest)]
    if facts["native"] is not None:
        rows.append(("it says then", facts["unlisted_message"]))
    rows += [(f"no {dtype}", text) for dtype, text in facts["denied_dtypes"].items()]
    report.table(f"operators of {name}", ("", ""), rows)
    if facts["rules"]:
        report.table(
            "rules, before the list",
            ("", "operators"),
            [_rule(rule) for rule in facts["rules"]],
        )


def _rule(rule: Mapping[str, Any]) -> tuple[str, str]:
    names = [name.removeprefix("aten::") for name in rule["operators"]]
    shown = [name for name in names if not (name.endswith("_") and name[:-1] in names)]
    lines = [", ".join(shown) + (", also in place" if len(shown) < len(names) else "")]
    lines += [f"where {rule['when']}"] if rule["when"] else []
    # in quotes what the backend itself says; results that are wrong come without a word
    quote = "" if rule["severity"] == "broken" else '"'
    lines += [f"{quote}{rule['message']}{quote}"] if rule["message"] else []
    return SEVERITY[rule["severity"]], "\n".join([*lines, f"{rule['confidence']}: {rule['source']}"])


def _lacks(profile: DeviceProfile, setting: str) -> bool:
    if setting == "train":
        return not profile.trains
    return not (profile.compile if setting == "compile" else profile.autocast_dtypes)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
