"""Assignment by ratio against a plain reference written target by target, as the facts tell it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyolo.assign.ratio import last_in_cell, match_by_ratio
from anyolo.structures import Targets

STRIDE = 8
STEPS = ((0, 0), (-0.5, 0), (0, -0.5), (0.5, 0), (0, 0.5))

# centres on whole and half cells and on the border are where the rules meet
centre = st.one_of(st.integers(0, 96).map(float), st.floats(0, 96, width=32))
side = st.one_of(st.just(8.0), st.just(32.0), st.floats(0, 120, width=32))
box = st.tuples(st.integers(0, 4).map(float), centre, centre, side, side)
images = st.lists(st.lists(box, max_size=6), min_size=1, max_size=3)
anchors = st.lists(
    st.tuples(st.floats(0.5, 6, width=32), st.floats(0.5, 6, width=32)), min_size=1, max_size=3
)


def to_targets(rows):
    arrays = [np.array(own, np.float32).reshape(-1, 5) for own in rows]
    for own in arrays:
        low, high = own[:, 1:3] - own[:, 3:] / 2, own[:, 1:3] + own[:, 3:] / 2
        own[:, 1:] = np.concatenate((low, high), 1)
    return Targets.pad(arrays)


def reference(targets, anchors_N2, size_hw, limit):
    """Per image and anchor the matches in the order of writing: cell x and y, box target, class."""
    rows, columns = size_hw
    found = {}
    for image in range(len(targets.mask)):
        real = targets.labels[image, targets.mask[image] == 1]
        for number, anchor in enumerate(anchors_N2.tolist()):
            own = []
            for step_x, step_y in STEPS:
                for label in real:
                    kind, x1, y1, x2, y2 = label
                    x, y, w, h = (
                        (x1 + x2) / 2 / STRIDE,
                        (y1 + y2) / 2 / STRIDE,
                        (x2 - x1) / STRIDE,
                        (y2 - y1) / STRIDE,
                    )
                    relation = [float(w / np.float32(anchor[0])), float(h / np.float32(anchor[1]))]
                    if min(relation) == 0 or max(max(r, 1 / r) for r in relation) >= limit:
                        continue
                    distance = {
                        (0, 0): None, (-0.5, 0): x, (0, -0.5): y, (0.5, 0): columns - x, (0, 0.5): rows - y,
                    }[step_x, step_y]  # fmt: skip
                    if distance is not None and not (distance % 1 < 0.5 and distance > 1):
                        continue
                    i = min(max(int(x + step_x), 0), columns - 1)
                    j = min(max(int(y + step_y), 0), rows - 1)
                    own.append((i, j, float(x - i), float(y - j), float(w), float(h), float(kind)))
            found[image, number] = own
    return found


@given(images, anchors, st.sampled_from([2.0, 4.0]))
def test_matches_are_those_of_the_reference(rows, written, limit):
    targets = to_targets(rows)
    anchors_N2 = torch.tensor(written)
    size_hw = (11, 12)
    match = match_by_ratio(targets, anchors_N2, STRIDE, size_hw, limit)
    assert match.valid_BNM.shape == (len(rows), len(written), 5 * targets.most())
    for (image, number), expected in reference(targets, anchors_N2, size_hw, limit).items():
        slots = match.valid_BNM[image, number].nonzero().flatten()
        cells = match.cell_BM[image, slots]
        own = torch.cat(
            (
                torch.stack((cells % 12, cells // 12), 1),
                match.boxes_BGM4[image, 0, slots],
                match.classes_BGM[image, 0, slots].unsqueeze(1),
            ),
            1,
        )
        assert own.numpy() == pytest.approx(np.array(expected).reshape(-1, 7), rel=1e-5, abs=1e-5)


@given(images, anchors)
def test_the_last_written_of_a_cell_wins(rows, written):
    match = match_by_ratio(to_targets(rows), torch.tensor(written), STRIDE, (11, 12), 4.0)
    last = last_in_cell(match.cell_BM, match.valid_BNM)
    for image in range(len(rows)):
        for number in range(len(written)):
            stays = {}
            for slot, cell in enumerate(match.cell_BM[image].tolist()):
                if match.valid_BNM[image, number, slot]:
                    stays[cell] = slot + 1
            expected = [stays.get(cell, 0) for cell in match.cell_BM[image].tolist()]
            assert last[image, number].tolist() == expected


def test_a_box_in_the_middle_of_four_cells_has_five():
    """A whole number of cells is in the nearer half from both sides."""
    match = match_by_ratio(to_targets([[(0, 40, 40, 8, 8)]]), torch.ones(1, 2), STRIDE, (11, 12), 4.0)
    cells = match.cell_BM[0][match.valid_BNM[0, 0] == 1]
    assert [(int(c) % 12, int(c) // 12) for c in cells] == [(5, 5), (4, 5), (5, 4), (5, 5), (5, 5)]


def test_the_last_of_many_slots_of_few_cells():
    """Runs of one cell far longer than the first turns reach."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 3, (5, 300), generator=generator)
    valid = (torch.rand(5, 3, 300, generator=generator) > 0.99).float()
    numbers = torch.arange(1, 301)
    same = cells.unsqueeze(2) == cells.unsqueeze(1)
    expected = (same.unsqueeze(1) * (valid * numbers).unsqueeze(2)).amax(3).long()
    assert torch.equal(last_in_cell(cells, valid), expected)


def test_padding_and_boxes_without_a_side_match_nothing():
    targets = to_targets([[(1, 40, 40, 0, 8), (1, 40, 40, 8, 0)], []])
    match = match_by_ratio(targets, torch.ones(2, 2), STRIDE, (11, 12), 4.0)
    assert match.valid_BNM.sum() == 0
    assert bool(torch.isfinite(match.boxes_BGM4).all()) and int(match.cell_BM.max()) < 11 * 12
