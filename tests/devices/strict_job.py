"""Train, validate and predict on a strict emulated device and on the CPU; one JSON line with what differs.

python tests/devices/strict_job.py BACKEND MODEL
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE), str(HERE.parent / "conformance")]

import numpy as np  # noqa: E402
import strict  # noqa: E402
import torch  # noqa: E402
from test_step_traces import small_batch  # noqa: E402

from anyolo import api  # noqa: E402
from anyolo.config.schema import LossConfig, OptimConfig  # noqa: E402
from anyolo.data.synth import write_dataset  # noqa: E402
from anyolo.devices import Device, open_device  # noqa: E402
from anyolo.devices.cpu import CPU  # noqa: E402
from anyolo.families import build_model  # noqa: E402
from anyolo.families.checkpoints import model_record, save_atomic  # noqa: E402
from anyolo.structures import Batch, Targets  # noqa: E402
from anyolo.train.ema import WeightAverage  # noqa: E402
from anyolo.train.optim import build_optimizer  # noqa: E402
from anyolo.train.step import StepConfig, train_step  # noqa: E402

LOWEST = 1e-4  # random weights are not sure of anything
STEPS, NC, SIZE = 3, 4, 160


class PlainCPU(CPU):
    """The CPU in the memory layout and with the optimizer of the backend, which train up to rounding alike
    (tests/unit/test_train_adam.py): Adam's first steps amplify any other rounding.
    """

    def __init__(self, like: Device):
        super().__init__()
        self.profile = replace(CPU.profile, channels_last=like.profile.channels_last, fused=False)
        self.lacks = like.lacks


def train(spec, model, device, optimizer_name):
    """Loss items of three updates."""
    average = WeightAverage(model)
    device.to(average.model)
    model = device.prepare(model).train()
    recipe = {name: spec.recipe[name] for name in ("loss_ota",) if name in spec.recipe}
    criterion = device.to(spec.criterion(model, LossConfig(**recipe)))
    config = OptimConfig(optimizer=optimizer_name, lr0=0.001)
    optimizer = build_optimizer(model, config, device, batch=2)
    images, labels, mask = small_batch(side=SIZE, nc=NC)
    batch = Batch((images * 255).to(torch.uint8), Targets(labels, mask), ())
    step = StepConfig(preprocess=spec.preprocess, reduction=spec.loss_reduction, clip_norm=10.0)
    losses = []
    for _ in range(STEPS):
        report = train_step(model, criterion, [batch], optimizer, device, device.scaler(None), step)
        average.update(model)
        losses.append([float(value.cpu()) for value in (*report.items.values(), report.norm)])
    return losses, {name: value.detach().cpu() for name, value in average.model.state_dict().items()}


def use(weights, data, folder, device):
    """Metrics and boxes of a validation, and the boxes of a prediction."""
    options = {"model": weights, "imgsz": SIZE, "device": device, "project": str(folder), "plots": False}
    options |= {"conf": LOWEST, "max_det": 50, "verbose": False}
    judged = api.val(data=data, workers=0, batch=2, **options)
    pictures = str(Path(data).parent / "images" / "val")
    found = api.predict(source=pictures, save=False, **options)
    boxes = [result.boxes.data.tolist() for result in found.results]
    # random weights score nothing, so that the boxes that were judged say more than the figures
    own = [np.column_stack((d.boxes_xyxy, d.scores, d.classes)).tolist() for d in judged.evaluation.found]
    return dict(judged.metrics), boxes, own


def difference(first, second):
    pairs = zip(torch.tensor(first).flatten(), torch.tensor(second).flatten(), strict=True)
    return max(float((a - b).abs() / b.abs().clamp(min=1e-6)) for a, b in pairs)


def main(backend, name):
    torch.set_num_threads(1)
    strict.install(backend)
    device = open_device("strict")
    cpu = PlainCPU(device)
    answer = {"backend": backend, "model": name}
    for optimizer in ("SGD", "AdamW"):
        torch.manual_seed(0)
        spec, model = build_model(name, nc=NC)
        here, _ = train(spec, copy.deepcopy(model), cpu, optimizer)
        there, weights = train(spec, model, device, optimizer)
        answer[optimizer] = {"losses": there, "difference": difference(there, here)}
    model.cpu().load_state_dict(weights)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data = str(write_dataset(folder / "data", train=1, val=3, size=SIZE, seed=0))
        record = model_record(model.eval(), spec, ("w", "r", "g", "b"), imgsz=(SIZE, SIZE), metrics={})
        save_atomic(record, folder / "weights.pt")
        for where in ("cpu", "strict"):
            answer[where] = use(str(folder / "weights.pt"), data, folder, where)
    state = strict.State
    answer.update(
        calls=sum(state.calls.values()), kinds=len(state.calls),
        unsupported=dict(state.unsupported), fallback=dict(state.fallback),
    )  # fmt: skip
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
