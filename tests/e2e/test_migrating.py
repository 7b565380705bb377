"""docs/migrating.md: no helper is missing, and every snippet runs and holds what it asserts."""

from __future__ import annotations

import re

import pytest
import torch

from anyolo.data.synth import NAMES, write_dataset
from anyolo.families import build_model
from anyolo.families.checkpoints import model_record, save_atomic
from tests.architecture.source import ROOT

NAMED = """
select_device device_count get_cpu_info smart_inference_mode time_sync profile fuse_conv_and_bn
fuse_deconv_and_bn model_info model_info_for_loggers get_num_params get_num_gradients get_flops
get_flops_with_torch_profiler initialize_weights scale_img make_divisible copy_attr intersect_dicts
get_latest_opset is_parallel de_parallel one_cycle init_seeds ModelEMA EarlyStopping strip_optimizer
smart_optimizer smart_resume smart_DDP torch_distributed_zero_first find_modules sparsity prune
check_train_batch_size autobatch genanchors
"""
HELPERS = NAMED.split()
LATER = {"prune", "sparsity"}
TEXT = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
SNIPPETS = {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in SECTIONS.items()}


def test_no_helper_is_missing():
    assert list(SECTIONS) == HELPERS
    assert {name for name, text in SECTIONS.items() if "Not yet" in text} == LATER
    for name, found in SNIPPETS.items():
        assert len(found) == (name not in LATER), name
        assert name in LATER or "assert" in found[0], name


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("migrating")
    write_dataset(folder / "my", train=8, val=4, size=160)
    torch.manual_seed(0)
    spec, model = build_model("yolov8n", nc=len(NAMES))
    save_atomic(model_record(model, spec, NAMES, imgsz=(64, 64), metrics={}), folder / "best.pt")
    return folder


@pytest.mark.parametrize("name", [name for name in HELPERS if name not in LATER])
def test_the_snippet_runs(name, place, monkeypatch):
    monkeypatch.chdir(place)
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        exec(compile(SNIPPETS[name][0], f"migrating.md:{name}", "exec"), {})
    finally:
        torch.use_deterministic_algorithms(deterministic)
