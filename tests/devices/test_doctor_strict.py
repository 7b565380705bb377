"""Doctor on a device that is not the CPU: host and device stay apart, nothing of anyolo is refused."""

from __future__ import annotations

import pytest

from tests.devices.test_strict import NEW_ENOUGH, answer_of

pytestmark = pytest.mark.skipif(not NEW_ENOUGH, reason="a device made in Python needs torch 2.9")


@pytest.mark.slow
def test_a_right_device_of_its_own_gives_no_finding():
    answer = answer_of("doctor_job.py", "directml")
    assert answer["findings"] == []
    assert answer["right"] > 120
    assert {"forward", "decode", "boxes", "loss", "gradients", "updates", "statistics"} <= set(
        answer["stages"]
    )
    assert answer["calls"] > 3000, "the work did not reach the device"
