"""The verbs and the settings of each."""

from __future__ import annotations

from typing import Any

from anyolo.config.schema import (
    AnchorsVerb,
    AuditVerb,
    BenchmarkVerb,
    ConvertVerb,
    DemoVerb,
    DevicesVerb,
    DoctorVerb,
    ExportVerb,
    InfoVerb,
    PredictVerb,
    ProfileVerb,
    TrainVerb,
    ValVerb,
)

VERBS: dict[str, type[Any]] = {
    "demo": DemoVerb,
    "train": TrainVerb,
    "val": ValVerb,
    "predict": PredictVerb,
    "export": ExportVerb,
    "benchmark": BenchmarkVerb,
    "info": InfoVerb,
    "profile": ProfileVerb,
    "convert": ConvertVerb,
    "anchors": AnchorsVerb,
    "devices": DevicesVerb,
    "audit": AuditVerb,
    "doctor": DoctorVerb,
}
