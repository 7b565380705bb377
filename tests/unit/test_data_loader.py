"""Samples, batches and workers: the same bytes from all; bad files; dead workers."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from anyolo import console
from anyolo.config.schema import AugmentConfig
from anyolo.data import DetectionDataset, make_loader
from anyolo.data.index import AnnotationIndex, Item
from anyolo.data.loader import Loader
from anyolo.data.processes import Processes
from anyolo.data.samples import SampleMaker
from anyolo.data.shared_bytes import SharedBytes
from anyolo.data.store import Shelf, make_shelf
from anyolo.data.workers import InCaller, Threads, Workers, start_workers
from anyolo.errors import AnyoloError, ConfigError
from anyolo.ops.letterbox import input_size
from anyolo.structures import Preprocess

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> AnnotationIndex:
    """Twenty-one pictures of different sizes with one box each, the third also with a crowd."""
    folder, rng, items = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for number in range(21):
        size_hw = (int(rng.integers(40, 300)), int(rng.integers(40, 300)))
        pixels = cv2.resize(
            rng.integers(0, 255, (6, 6, 3), np.uint8), size_hw[::-1], interpolation=cv2.INTER_CUBIC
        )
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), pixels)
        labels = np.array([[number % 3, 0.5, 0.5, 0.6, 0.4]] * (2 if number == 2 else 1), np.float32)
        crowd = np.arange(len(labels)) > 0
        items.append(Item(str(path), size_hw, labels, crowd, np.ones(len(labels), np.float32), number))
    return AnnotationIndex(("a", "b", "c"), tuple(items))


def training(index: AnnotationIndex, **options: Any) -> DetectionDataset:
    augment = options.pop("augment", AugmentConfig(mixup=0.3, degrees=5.0, flipud=0.5))
    return DetectionDataset(index, Preprocess(), imgsz=96, augment=augment, batch=4, **options)


def loader_of(dataset: DetectionDataset, workers: Workers | None = None, **options: Any) -> Loader:
    options = {"batch": 4, "shuffle": True, "seed": 0, "pin": False} | options
    return Loader(dataset, workers=workers or InCaller(dataset.maker), **options)


def digests(loader: Loader, epoch: int, start_batch: int = 0) -> list[str]:
    out = []
    for batch in loader.epoch(epoch, start_batch):
        content = batch.images.numpy().tobytes() + batch.targets.labels.numpy().tobytes()
        out.append(hashlib.sha256(content + repr(batch.records).encode()).hexdigest())
    return out


def spoilt(index: AnnotationIndex, number: int, folder: Path) -> AnnotationIndex:
    """The index with one picture that stopped being one after it was read."""
    path = folder / "spoilt.jpg"
    path.write_bytes(b"\xff\xd8 not really")
    own = index.items[number]
    items = list(index.items)
    items[number] = Item(str(path), own.size_hw, own.labels, own.crowd, own.area, own.image_id)
    return AnnotationIndex(index.names, tuple(items))


class Listener(console.NullReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)

    line = warn


# ------------------------------------------------------------------ determinism


def test_workers_order_and_caches_change_no_byte(index: AnnotationIndex) -> None:
    expected = {epoch: digests(loader_of(training(index)), epoch) for epoch in (0, 1)}
    assert len(expected[0]) == 6 and not set(expected[0]) & set(expected[1])
    makers: list[Callable[[SampleMaker], Workers]] = [
        lambda maker: Threads(maker, 3),
        lambda maker: Processes(maker, 2, in_flight=12),
    ]
    for cache in (False, "ram", "disk"):
        for make in makers:
            dataset = training(index, cache=cache)
            loader = loader_of(dataset, make(dataset.maker))
            try:
                assert digests(loader, 1, 2) == expected[1][2:]
                assert digests(loader, 0) == expected[0]
                assert digests(loader, 1) == expected[1]
            finally:
                loader.close()


def test_skipped_batches_are_not_made(index: AnnotationIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = loader_of(training(index))
    made: list[int] = []
    make = SampleMaker.make
    monkeypatch.setattr(SampleMaker, "make", lambda *args: made.append(args[1].position) or make(*args))
    assert len(digests(loader, 0, 5)) == 1 and len(made) == 1
    assert digests(loader, 0, 6) == []


def test_each_epoch_shows_every_picture_once(index: AnnotationIndex) -> None:
    loader = loader_of(training(index))
    orders = [[r.index for batch in loader.epoch(e) for r in batch.records] for e in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(21)) and orders[0] != orders[1]
    assert len(loader) == 6
    plain = loader_of(training(index), shuffle=False)
    assert [r.index for batch in plain.epoch(0) for r in batch.records] == list(range(21))


def test_the_seed_matters(index: AnnotationIndex) -> None:
    one, other = (digests(loader_of(training(index, seed=seed), seed=seed), 0) for seed in (0, 1))
    assert not set(one) & set(other)


# ------------------------------------------------------------------ samples


def test_sample(index: AnnotationIndex) -> None:
    dataset = training(index)
    image, boxes, record = dataset.sample(3, 5)
    again, same_boxes, _ = dataset.sample(3, 5)
    assert image.shape == (3, 96, 96) and image.dtype == np.uint8 and boxes.shape[1] == 5
    assert np.array_equal(image, again) and np.array_equal(boxes, same_boxes)
    assert record.path == index.items[5].path and record.index == 5
    assert not np.array_equal(image, dataset.sample(4, 5)[0])


def test_evaluation_only_fits(index: AnnotationIndex) -> None:
    dataset = DetectionDataset(index, Preprocess(), imgsz=(96, 128), augment=None)
    assert not dataset.is_training
    for position in (0, 2):
        image, boxes, record = dataset.sample(0, position)
        item = index.items[position]
        assert image.shape == (3, 96, 128) and len(boxes) == 1
        back = record.placement.inverse(boxes[:, 1:], item.size_hw)
        assert np.abs(back - item.boxes_xyxy[:1]).max() < 1e-2


def test_crowds_are_not_trained_on(index: AnnotationIndex) -> None:
    dataset = training(index, augment=AugmentConfig(mosaic=0, scale=0, translate=0, fliplr=0))
    assert len(dataset.sample(0, 2)[1]) == 1 and len(index.items[2].labels) == 2


def test_no_augmentation_lays_the_picture_like_the_letterbox(index: AnnotationIndex) -> None:
    calm = AugmentConfig(mosaic=0, scale=0, translate=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0)
    for fit in ("letterbox", "letterbox_topleft", "stretch"):
        preprocess = Preprocess(fit=fit)  # type: ignore[arg-type]
        trained = DetectionDataset(index, preprocess, imgsz=96, augment=calm)
        fitted = DetectionDataset(index, preprocess, imgsz=96, augment=None)
        for position in range(5):
            (image, boxes, _), (expected, expected_boxes, _) = (
                trained.sample(0, position),
                fitted.sample(0, position),
            )
            assert np.array_equal(image, expected)
            assert np.abs(boxes - expected_boxes).max() < 0.6  # whole pixels of the resized picture


def test_mosaic_closes(index: AnnotationIndex) -> None:
    dataset = training(index, augment=AugmentConfig(scale=0, translate=0, fliplr=0))
    dataset.mosaic_until_epoch = 2
    boxes = [sum(len(dataset.sample(epoch, p)[1]) for p in range(21)) for epoch in range(4)]
    assert min(boxes[:2]) > 21 and boxes[2:] == [21, 21]


def test_channels(index: AnnotationIndex) -> None:
    rgb, bgr = (
        DetectionDataset(index, Preprocess(channels=c), imgsz=96, augment=None).sample(0, 0)[0]
        for c in ("rgb", "bgr")
    )  # type: ignore[arg-type]
    assert np.array_equal(rgb, bgr[::-1])


@pytest.mark.parametrize(
    ("imgsz", "words"),
    [(100, "96 or 128"), (20, "Use 32"), ((64, 65), "64 or 96"), (0, "Use 32"), (-32, "Use 32")],
)
def test_sizes_off_the_stride_are_refused(imgsz: int | tuple[int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        input_size(imgsz, 32)
    assert caught.value.where == "imgsz"


def test_rect_batches(index: AnnotationIndex) -> None:
    dataset = DetectionDataset(index, Preprocess(), imgsz=96, augment=None, rect=True, batch=4)
    loader = make_loader(dataset, batch=4, workers=0, shuffle=False, seed=0)
    seen, shapes = [], []
    for batch in loader.epoch(0):
        height, width = batch.images.shape[2:]
        assert height % 32 == width % 32 == 0
        shapes.append((height, width))
        for row, record in enumerate(batch.records):
            item = index.items[record.index]
            assert record.path == item.path and record.placement.input_hw == (height, width)
            inner_h, inner_w = record.placement.inner_hw
            assert max(inner_h, inner_w) == 96 and inner_h <= height and inner_w <= width
            box = batch.targets.labels[row, 0, 1:].numpy()[None]
            assert np.abs(record.placement.inverse(box, item.size_hw) - item.boxes_xyxy[:1]).max() < 1e-2
            seen.append(record.index)
    assert sorted(seen) == list(range(21)) and len(set(shapes)) > 1
    aspects = [index.items[k].size_hw[0] / index.items[k].size_hw[1] for k in seen]
    assert aspects == sorted(aspects)
    with pytest.raises(ValueError, match="batches of 4"):
        make_loader(dataset, batch=8, workers=0, shuffle=False, seed=0)


def test_rect_training_keeps_batches_together(index: AnnotationIndex) -> None:
    dataset = training(index, rect=True)
    batches = list(loader_of(dataset).epoch(0))
    assert sum(len(batch.images) for batch in batches) == 21
    assert all(0 < int(batch.targets.mask.sum()) <= len(batch.images) for batch in batches)


# ------------------------------------------------------------------ bad files


def test_a_bad_picture_is_left_out_of_evaluation(index: AnnotationIndex, tmp_path: Path) -> None:
    dataset = DetectionDataset(spoilt(index, 20, tmp_path), Preprocess(), imgsz=96, augment=None)
    loader, listener = make_loader(dataset, batch=4, workers=0, shuffle=False, seed=0), Listener()
    with console.use(listener):
        for _ in range(2):
            seen = [record.index for batch in loader.epoch(0) for record in batch.records]
    assert seen == list(range(20))
    assert list(dataset.bad_files) == [str(tmp_path / "spoilt.jpg")]
    assert len(listener.said) == 1 and "cut off" in listener.said[0] and "left out" in listener.said[0]


def test_a_bad_picture_is_grey_and_empty_in_training(index: AnnotationIndex, tmp_path: Path) -> None:
    calm = AugmentConfig(mosaic=0, hsv_h=0, hsv_s=0, hsv_v=0)
    dataset = training(spoilt(index, 3, tmp_path), augment=calm)
    image, boxes, _ = dataset.sample(0, 3)
    assert (image == 114).all() and len(boxes) == 0 and len(dataset.bad_files) == 1
    mosaics = training(spoilt(index, 3, tmp_path))
    workers = Threads(mosaics.maker, 2)
    loader, listener = loader_of(mosaics, workers), Listener()
    with console.use(listener):
        assert sum(len(batch.images) for batch in loader.epoch(0)) == 21
    loader.close()
    assert len(listener.said) == 1 and "grey" in listener.said[0]


# ------------------------------------------------------------------ caches


def test_pictures_are_decoded_once_with_a_cache(
    index: AnnotationIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyolo.data import store

    read: list[str] = []
    monkeypatch.setattr(store, "read_image", lambda path, **k: read.append(path) or read_image(path, **k))
    for cache, again in (("ram", 21), ("disk", 21), ("disk", 0)):
        read.clear()
        loader = loader_of(training(index, cache=cache))
        for epoch in range(2):
            digests(loader, epoch)
        assert len(read) == len(set(read)) == again


def read_image(path: str, **options: Any) -> Any:
    from anyolo.ops.image import read_image as read

    return read(path, **options)


def test_mosaics_decode_each_picture_about_once(
    index: AnnotationIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anyolo.data import store

    read: list[str] = []
    monkeypatch.setattr(store, "read_image", lambda path, **k: read.append(path) or read_image(path, **k))
    digests(loader_of(training(index)), 0)
    assert len(read) == 21


def test_a_half_written_place_on_disk_is_decoded_anew(tmp_path: Path) -> None:
    sizes = [(3, 4), (5, 6)]
    path = tmp_path / "pictures.raw"
    path.write_bytes(bytes(sum(4 + h * w * 3 for h, w in sizes)))
    shelf, pixels = Shelf(sizes, path), np.full((5, 6, 3), 9, np.uint8)
    assert shelf.get(1) is None
    shelf.put(1, pixels)
    kept = Shelf(sizes, path).get(1)
    assert kept is not None and np.array_equal(kept, pixels) and not kept.flags.writeable
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert Shelf(sizes, path).get(1) is None


def test_caches_that_do_not_fit_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    monkeypatch.setattr("anyolo.data.store.free_memory", lambda: 1000)
    with console.use(listener):
        assert make_shelf("ram", ["a"], [(100, 100)]) is None
        assert make_shelf("ram", ["a"], [(5, 5)]) is not None
        monkeypatch.setattr("anyolo.data.store.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
        assert make_shelf("disk", ["a"], [(100, 100)]) is None
    assert "cache=ram needs" in listener.said[0] and "cache=disk needs" in listener.said[1]


def test_shared_bytes_leave_nothing_behind() -> None:
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    shared = SharedBytes(1000)
    shared.array[:] = 7
    assert not before or set(os.listdir("/dev/shm")) <= before
    assert shared.array.sum() == 7000


# ------------------------------------------------------------------ workers


def test_kinds_of_workers(index: AnnotationIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, listener = training(index).maker, Listener()
    assert isinstance(start_workers(0, maker, in_flight=4), InCaller)
    monkeypatch.setattr("anyolo.data.workers.processors", lambda: 2)
    threads = cv2.getNumThreads()
    with console.use(listener):
        workers = start_workers(8, maker, in_flight=4)
    assert isinstance(workers, Threads) and "2 loader workers" in listener.said[0]
    workers.close()
    assert cv2.getNumThreads() == threads
    monkeypatch.setattr("anyolo.data.workers.processors", lambda: 4)
    workers = start_workers(1, maker, in_flight=4, apart=True)
    assert isinstance(workers, Processes)
    workers.close()
    workers = start_workers(3, maker, in_flight=4)
    assert isinstance(workers, Processes)
    workers.close()
    workers.close()


def test_a_dead_worker_is_an_error_not_a_hang(index: AnnotationIndex) -> None:
    dataset = training(index)
    workers = Processes(dataset.maker, 2, in_flight=12)
    loader = loader_of(dataset, workers)
    batches = loader.epoch(0)
    next(batches)
    for child in workers._children:
        child.process.kill()
    with pytest.raises(AnyoloError, match="worker died") as caught:
        for epoch in range(3):
            list(batches)
            batches = loader.epoch(epoch)
    assert caught.value.hint
    loader.close()


def test_an_exception_in_a_worker_is_shown(index: AnnotationIndex) -> None:
    dataset = training(index)
    workers = Processes(dataset.maker, 1, in_flight=1)
    pending = workers.start(dataset.task(0, 0)._replace(position=999), np.empty((3, 96, 96), np.uint8))
    with pytest.raises(RuntimeError, match="IndexError"):
        pending.result()
    workers.close()


SCRIPT = """
import signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it (nohup, &)
from anyolo.data import DetectionDataset, open_data
from anyolo.data.loader import Loader
from anyolo.data.processes import Processes
from anyolo.config.schema import AugmentConfig
from anyolo.structures import Preprocess
dataset = DetectionDataset(open_data(sys.argv[1], "train"), Preprocess(), imgsz=64, augment=AugmentConfig())
workers = Processes(dataset.maker, 2, in_flight=6)
loader = Loader(dataset, batch=2, workers=workers, shuffle=True, seed=0, pin=False)
print(sum(len(batch.images) for batch in loader.epoch(0)), flush=True)
for epoch in range(10**6):
    for batch in loader.epoch(epoch):
        pass
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_script_without_main_guard_and_its_end(
    index: AnnotationIndex, tmp_path: Path, end: signal.Signals
) -> None:
    """Workers start from a script with no ``__main__`` guard, hold no torch, go with their parent."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    folder = str(Path(index.items[0].path).parent)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        [sys.executable, str(script), folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert parent.stdout and parent.stderr
    assert parent.stdout.readline().strip() == b"21"
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) == 2
    for child in children:
        assert not any("libtorch" in m.path for m in child.memory_maps())
    parent.send_signal(end)
    _, errors = parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)
    assert (b"KeyboardInterrupt" in errors) == (end == signal.SIGINT)
    assert errors.count(b"Traceback") <= 1
