"""The inventory: lines and phases of anybody's code, results untouched, and the three ways to read it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import anyolo
from anyolo.audit import Audit, Row
from anyolo.errors import AnyoloError, ConfigError, UnknownName

PROGRAM = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        counts = torch.unique(y.detach(), return_counts=True)
        return y.index_select(
            0, torch.tensor([0, 1, 1])
        ) + len(counts)


net = Net()
optimizer = torch.optim.AdamW(net.parameters(), foreach=False)


def step():
    loss = net(torch.rand(3, 4)).sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    torch.lerp(torch.zeros(2), torch.ones(2), 0.5)
"""


def line_of(text: str) -> int:
    (number,) = (n for n, line in enumerate(PROGRAM.splitlines(), 1) if text in line)
    return number


def load_program(path: Path):
    path.write_text(PROGRAM, encoding="utf-8")
    spec = spec_from_file_location("audited_program", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Audit, Path]:
    path = tmp_path_factory.mktemp("a<b> & c") / "pro<gram>.py"
    program = load_program(path)
    return anyolo.audit(program.step, backend="directml"), path


def test_file_line_and_phase_are_exact(found):
    audit, path = found
    places = {(row.op, row.phase, row.where) for row in audit.rows if row.verdict != "native"}
    assert places == {
        ("aten::_unique2", "forward", f"{path}:{line_of('return_counts=True')}"),
        ("aten::index_add.out", "backward", f"{path}:{line_of('y.index_select(')}"),
        ("aten::lerp.Scalar_out", "optimizer", f"{path}:{line_of('optimizer.step()')}"),
        ("aten::lerp.Scalar_out", "other", f"{path}:{line_of('torch.lerp(')}"),
    }
    linear = {row.where for row in audit.rows if row.op == "aten::mm" and row.phase == "backward"}
    assert linear == {f"{path}:{line_of('self.layer(x)')}"}


def test_counts_and_order(found):
    audit, _ = found
    assert (audit.unsupported, audit.fallback, audit.ok) == (1, 4, False)  # a lerp for weight and for bias
    assert [row.verdict for row in audit.rows] == sorted(
        (row.verdict for row in audit.rows), key=["unsupported", "fallback", "unknown", "native"].index
    )
    document = json.loads(json.dumps(audit.to_json()))
    assert (document["backend"], document["unsupported"], document["fallback"]) == ("directml", 1, 4)
    assert {"op", "count", "phase", "verdict", "where", "within", "message", "source"} == set(
        document["ops"][0]
    )
    assert sum(row["count"] for row in document["ops"]) == document["native"] + 5


def test_text_fits_a_hundred_columns_and_names_the_worst_first(found):
    audit, path = found
    text = audit.text()
    assert all(len(line) <= 100 or str(path.parent) in line for line in text.splitlines())
    lines = text.splitlines()
    assert lines[0].startswith(
        "step under the rules of directml: 1 operator unsupported (1 call), 2 operators"
    )
    first = next(number for number, line in enumerate(lines) if line.startswith("UNSUPPORTED"))
    assert lines[first + 1].split() == ["aten::_unique2", "1", "call"]
    assert "Return counts not implemented for unique operator for DirectML." in lines[first + 2]
    assert f"{path}:{line_of('return_counts')}" in lines[first + 4]
    assert text.index("UNSUPPORTED") < text.index("ON THE CPU INSTEAD") < text.index("native:")


def test_many_places_are_counted_in_words_and_listed_in_json():
    rows = tuple(
        Row(op="aten::x", count=2, phase="forward", verdict="fallback", where=f"f.py:{number}", message="m")
        for number in range(20)
    )
    audit = Audit(backend="b", job="j", facts="f", rows=rows)
    assert "    16  in 8 more places" in audit.text()
    assert len(audit.to_json()["ops"]) == 20


def test_page_escapes_and_shows_the_source(found):
    audit, _ = found
    page = audit.html()
    assert "<b>" not in page and "pro<gram>" not in page
    assert f"pro&lt;gram&gt;.py:{line_of('return_counts')}" in page
    assert "counts = torch.unique(y.detach(), return_counts=True)" in page
    assert 'href="https://github.com/microsoft/DirectML/issues/410"' in page
    assert page.count("<tr class=") == len(audit.rows)
    assert page.index('<tr class="unsupported">') < page.index('<tr class="fallback">')
    assert "src=" not in page and "@import" not in page  # nothing beside it


def test_a_hostile_row_stays_text():
    row = Row(
        op="<script>", count=1, phase="forward", verdict="unsupported", where='"><img>:1', message="<i>",
        source='https://x"onclick="y',
    )  # fmt: skip
    page = Audit(backend="b", job="</title><script>", facts="<u>", rows=(row,)).html()
    for piece in ("<script>,", "<img>", "<i>", "<u>", '"onclick', "</title><script>"):
        assert piece not in page.replace("<script>\nfor", "")


def two_updates(audited: bool) -> list[torch.Tensor]:
    """Convolutions, norms, composite losses and an optimizer; what all of it leaves behind."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(inplace=True), nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5), nn.GELU(),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, foreach=False)
    kept = []

    def step():
        for _ in range(2):
            x = net(torch.rand(4, 3, 12, 12))
            target = torch.randint(5, (4,))
            loss = F.binary_cross_entropy_with_logits(x, F.one_hot(target, 5).float())
            loss = loss + F.cross_entropy(x, target) + x.matmul(torch.rand(5)).norm()
            x.register_hook(lambda gradient: kept.append(gradient.clone()))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            kept.append(loss.detach())
            slots = torch.zeros(4, 5)
            slots[:, 1:3].fill_(2).lerp_(torch.rand(4, 2), 0.3)
            kept.append(slots)

    anyolo.audit(step, backend="directml") if audited else step()
    return [*kept, *net.state_dict().values(), torch.get_rng_state()]


def test_results_are_to_the_bit_those_without_an_audit():
    plain, audited = two_updates(False), two_updates(True)
    assert len(plain) == len(audited) > 10
    assert all(torch.equal(a, b) for a, b in zip(plain, audited, strict=True))


def test_inplace_composites_are_tried_on_copies():
    whole, draws = torch.zeros(4, 6), torch.Generator().manual_seed(1)
    twin, twin_draws = copy.deepcopy(whole), torch.Generator().manual_seed(1)

    def step(tensor, generator):
        tensor[1:3, ::2].lerp_(torch.ones(2, 3), 0.25)
        return torch.rand(3, generator=generator)

    drawn = []
    anyolo.audit(lambda: drawn.append(step(whole, draws)), backend="directml")
    assert torch.equal(drawn[0], step(twin, twin_draws))
    assert torch.equal(whole, twin)


class Noise(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.lerp(torch.zeros(2), torch.ones(2), 0.5)


def test_a_data_loaders_work_is_the_hosts():
    def step():
        for batch in DataLoader(Noise(), batch_size=2):
            batch + 1

    found = anyolo.audit(step, backend="directml")
    assert found.fallback == 0
    assert sum(row.count for row in found.rows if row.op == "aten::add.Tensor") == 2


def test_phases_can_be_chosen(found):
    _, path = found
    program = load_program(path)
    own = anyolo.audit(program.step, backend="directml", phases=("backward",))
    assert {row.phase for row in own.rows} == {"backward"}
    assert (own.unsupported, own.fallback) == (0, 1)


def test_what_no_list_covers_is_unknown():
    library = torch.library.Library("anyolo_audit_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    found = anyolo.audit(lambda: torch.ops.anyolo_audit_test.twice(torch.ones(2)), backend="directml")
    (row,) = (row for row in found.rows if row.verdict == "unknown")
    assert row.op == "anyolo_audit_test::twice" and row.where.startswith(__file__)
    assert found.ok and "NOT KNOWN" in found.text()


def test_a_slip_is_answered():
    with pytest.raises(UnknownName, match="directml") as error:
        anyolo.audit(lambda: None, backend="directmll")
    assert error.value.where == "backend"
    with pytest.raises(UnknownName, match="forward"):
        anyolo.audit(lambda: None, backend="directml", phases=("forwards",))
    with pytest.raises(ConfigError, match="not a function"):
        anyolo.audit(torch.ones(2), backend="directml")
    with pytest.raises(AnyoloError):
        anyolo.audit(lambda: None, backend="")


def test_an_error_of_the_step_passes_and_leaves_torch_as_it_was():
    def step():
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        anyolo.audit(step, backend="directml")
    assert not torch.is_anomaly_enabled()
    assert not torch.utils._python_dispatch._get_current_dispatch_mode()


def test_it_is_a_verb_and_a_room():
    code = "import anyolo\nimport anyolo.audit.rows\nfrom anyolo import audit\nassert callable(audit)\n"
    code += "assert audit is anyolo.audit"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_it_needs_torch_and_numpy_only():
    absent = ("pydantic", "annotated_types", "rich", "yaml", "cv2", "onnx", "onnxruntime", "matplotlib")
    code = f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
    code += "import torch, anyolo\n"
    code += "found = anyolo.audit(lambda: torch.eye(2), backend='dml')\nprint(found)\nfound.html()\n"
    code += "sys.exit(found.unsupported)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "torch.eye returns an empty tensor" in done.stdout
    assert "<string>:4" in done.stdout
