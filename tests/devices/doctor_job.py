"""What doctor finds on a strict emulated device, of all that anyolo calls: one JSON line.

python tests/devices/doctor_job.py BACKEND
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import strict  # noqa: E402
import torch  # noqa: E402

from anyolo.audit.compare_operators import cases_for, compare_operators, operator_findings  # noqa: E402
from tests.conformance.test_doctor_network import compare  # noqa: E402


def main(backend: str) -> None:
    device = strict.install(backend)(0)
    used = [case for case in cases_for(device, torch.float32) if case.is_used]
    outcomes = list(compare_operators(device, torch.float32, used))
    report = compare(device)
    findings = [*operator_findings(outcomes), *report.findings]
    document = {
        "right": sum(outcome.verdict == "right" for outcome in outcomes),
        "stages": sorted({measure.stage for measure in report.measures}),
        "findings": [finding.to_json() for finding in findings],
        "calls": sum(strict.State.calls.values()),
    }
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
