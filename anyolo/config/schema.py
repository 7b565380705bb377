"""Every setting a user can type, one frozen dataclass per room.

``Annotated[type, bound, "help"]``: the type and bound are checked by ``load``, the help is what ``--help``
prints. Names and defaults are the field's (reference: Ultralytics 8.4, YOLOv5 v7). A verb is a dataclass
whose fields are rooms; its keys on the command line are flat, so a key may occur in several rooms, and each
gets it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated as A
from typing import Literal

from annotated_types import Ge, Gt, Interval

from anyolo.config.spelling import Spelling, device_words

Share = Interval(ge=0, le=1)
DeviceWords = Spelling(device_words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    model: A[str, "weights file (.pt), model name (yolov8n) or YAML of rows"] = ""
    cfg: A[str, "YAML of rows to build; the weights of model= are then mapped onto it"] = ""
    family: A[str, "family of a weights file that fits several"] = ""
    preprocess: A[str, "another input contract of the family than its own, by name"] = ""
    pretrained: A[bool | str, "start from the weights of model=, or of the file named here"] = True
    anchors: A[
        tuple[float, ...] | None,
        "box shapes to use instead of the model's own: w,h,w,h,... in input pixels, finest level first",
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    device: A[
        str, DeviceWords, "cpu, cuda, cuda:1, 0, -1, mps, xpu, npu, mlu, dml, auto, emulate:directml, ..."
    ] = "auto"
    amp: A[bool, "mixed precision where the device has it and it is measured faster and as accurate"] = True
    half: A[bool, "half precision inference where the device has it"] = False
    strict: A[bool, "an error instead of a notice where the device lacks what was asked for"] = False
    threads: A[int, Ge(0), "CPU threads for torch; 0 leaves torch's choice"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    data: A[str, "data.yaml, folder, COCO json or Darknet .data file"] = ""
    imgsz: A[int | tuple[int, int], "input size in pixels, one number or height,width"] = 640
    batch: A[
        A[int, Ge(1)] | Literal[-1] | A[float, Interval(gt=0, lt=1)],
        "pictures per batch; -1: the smallest that is as fast as any, 0.8: fill that share of the memory",
    ] = 16
    workers: A[int, Ge(0), "loader processes; 0 loads in the main process"] = 8
    cache: A[bool | Literal["ram", "disk"], "keep decoded pictures in ram or on disk"] = False
    rect: A[bool, "batches of similar aspect instead of squares"] = False
    fraction: A[float, Interval(gt=0, le=1), "share of the training pictures to use"] = 1.0
    single_cls: A[bool, "treat all classes as one"] = False
    classes: A[tuple[int, ...] | None, "keep only these class indices"] = None

    @property
    def batch_size(self) -> int:
        """``batch``, or 0 while the number has still to be found."""
        return int(self.batch) if self.batch >= 1 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedDataConfig(DataConfig):
    batch: A[int, Ge(1), "pictures per batch"] = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    hsv_h: A[float, Share, "hue jitter, share of the circle"] = 0.015
    hsv_s: A[float, Share, "saturation jitter"] = 0.7
    hsv_v: A[float, Share, "brightness jitter"] = 0.4
    degrees: A[float, Interval(ge=0, le=180), "rotation, plus or minus"] = 0.0
    translate: A[float, Share, "shift, plus or minus, share of the size"] = 0.1
    scale: A[float, Ge(0), "zoom, plus or minus"] = 0.5
    shear: A[float, Interval(ge=0, le=180), "shear in degrees, plus or minus"] = 0.0
    perspective: A[float, Interval(ge=0, le=0.001), "perspective, plus or minus"] = 0.0
    flipud: A[float, Share, "chance of an upside-down flip"] = 0.0
    fliplr: A[float, Share, "chance of a left-right flip"] = 0.5
    bgr: A[float, Share, "chance of swapped colour channels"] = 0.0
    mosaic: A[float, Share, "chance of four pictures in one"] = 1.0
    mixup: A[float, Share, "chance of two pictures blended"] = 0.0
    close_mosaic: A[int, Ge(0), "last epochs without mosaic and mixup"] = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    optimizer: A[Literal["auto", "SGD", "Adam", "AdamW", "RMSProp"], "auto chooses and says what"] = "auto"
    lr0: A[float, Gt(0), "initial learning rate"] = 0.01
    lrf: A[float, Gt(0), "final learning rate as a share of lr0"] = 0.01
    momentum: A[float, Interval(ge=0, lt=1), "SGD momentum, Adam beta1"] = 0.937
    weight_decay: A[float, Ge(0), "weight decay of the weights (not of biases and norms)"] = 0.0005
    warmup_epochs: A[float, Ge(0), "epochs of rising learning rate"] = 3.0
    warmup_momentum: A[float, Interval(ge=0, lt=1), "momentum at the start of the warm-up"] = 0.8
    warmup_bias_lr: A[float, Ge(0), "learning rate of the biases at the start of the warm-up"] = 0.1
    cos_lr: A[bool, "cosine instead of linear decay"] = False
    steps: A[tuple[int, ...] | None, "no decay, but a tenth of the rate from each of these epochs on"] = None
    nbs: A[int, Ge(0), "nominal batch: gradients are accumulated up to it; 0: an update per batch"] = 64
    clip_norm: A[float, Ge(0), "gradient norm limit, 0 for none"] = 10.0
    freeze: A[int | tuple[int, ...] | None, "freeze the first N rows, or the rows listed"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    loss_device: A[Literal["auto", "cpu"], "cpu: the loss is computed on the host"] = "auto"
    imgsz: A[int | tuple[int, int], "input size in pixels, one number or height,width"] = 640
    box: A[float, Ge(0), "gain of the box loss"] = 7.5
    cls: A[float, Ge(0), "gain of the class loss"] = 0.5
    dfl: A[float, Ge(0), "gain of the distribution focal loss"] = 1.5
    obj: A[float, Ge(0), "gain of the objectness loss, of heads with anchors"] = 1.0
    cls_pw: A[float, Gt(0), "weight of wanted classes against unwanted ones"] = 1.0
    obj_pw: A[float, Gt(0), "weight of wanted objectness against unwanted"] = 1.0
    fl_gamma: A[float, Ge(0), "focal loss: the power that easy cases are weighted down by, 0 for none"] = 0.0
    label_smoothing: A[float, Interval(ge=0, lt=1), "share of a class target that goes to all classes"] = 0.0
    anchor_t: A[float, Gt(1), "an anchor fits boxes whose sides are within so many times its own"] = 4.0
    loss_ota: A[bool, "of the anchors that fit, only the cheapest answer for a box (OTA)"] = False
    autobalance: A[bool, "let the objectness losses of the levels level out"] = False
    tal_min_side: A[
        float, Ge(0), "boxes below this many pixels are enlarged to it when candidates are chosen"
    ] = 16.0
    aux: A[float, Ge(0), "weight of the loss of an auxiliary branch, of heads that have one"] = 0.25
    aux_follows: A[bool, "the auxiliary branch answers for the boxes that the main one answers for"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    project: A[str, "folder of all runs"] = "runs/detect"
    name: A[str, "folder of this run; train, train2, ... if not given"] = ""
    exist_ok: A[bool, "write into an existing folder"] = False
    verbose: A[bool, "say what happens"] = True
    plots: A[bool, "draw curves and batches"] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    epochs: A[int, Ge(1), "passes over the training pictures"] = 100
    time: A[float | None, Gt(0), "stop after this many hours instead"] = None
    patience: A[int, Ge(0), "epochs without progress before stopping, 0 for never"] = 100
    seed: A[int, Ge(0), "seed of everything random"] = 0
    deterministic: A[bool, "deterministic operators"] = True
    multi_scale: A[float, Interval(ge=0, lt=1), "resize batches by up to this share"] = 0.0
    val: A[bool, "evaluate after every epoch"] = True
    autoanchor: A[bool, "fit new anchors to the boxes where the model's own reach too few of them"] = True
    save: A[bool, "write best.pt and last.pt"] = True
    save_period: A[int, Ge(-1), "also keep every N-th epoch's weights"] = -1
    resume: A[bool | str, "go on with a stopped run: True, its folder or its last.pt"] = False
    compile: A[bool, "torch.compile the model"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleConfig:
    sync_bn: A[bool, "several devices: batch norm over the whole batch, where the backend has it"] = True
    comm_hook: A[
        Literal["none", "fp16", "bf16", "powersgd", "topk"],
        "several devices: send gradients in half precision, in low rank, or only the largest hundredth",
    ] = "none"
    restarts: A[int, Ge(0), "several devices: go on from the last checkpoint so often when one fails"] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    split: A[Literal["train", "val", "test"], "which pictures"] = "val"
    conf: A[float, Share, "lowest score kept"] = 0.001
    iou: A[float, Share, "overlap above which the weaker box goes"] = 0.7
    max_det: A[int, Ge(1), "most boxes per picture"] = 300
    multi_label: A[bool, "a box may answer for several classes instead of its best one"] = True
    agnostic_nms: A[bool, "boxes of different classes suppress each other"] = False
    save_json: A[bool, "write predictions in COCO format"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    source: A[str, "file, folder, glob, video or camera number"] = ""
    imgsz: A[int | tuple[int, int], "input size in pixels"] = 640
    rect: A[bool, "pad to the stride only, not to a square"] = True
    batch: A[int, Ge(1), "pictures per forward"] = 1
    conf: A[float, Share, "lowest score kept"] = 0.25
    iou: A[float, Share, "overlap above which the weaker box goes"] = 0.7
    max_det: A[int, Ge(1), "most boxes per picture"] = 300
    agnostic_nms: A[bool, "boxes of different classes suppress each other"] = False
    classes: A[tuple[int, ...] | None, "keep only these class indices"] = None
    vid_stride: A[int, Ge(1), "use every N-th video frame"] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LookConfig:
    augment: A[bool, "look three times, at scales 1, 0.83 (mirrored) and 0.67, and merge the boxes"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveConfig:
    save: A[bool, "write annotated pictures"] = True
    save_frames: A[bool, "write video frames as pictures"] = False
    save_txt: A[bool, "write labels/*.txt"] = False
    save_conf: A[bool, "add the score to labels/*.txt"] = False
    save_crop: A[bool, "write each box as a picture"] = False
    show: A[bool, "open a window"] = False
    show_labels: A[bool, "draw class names"] = True
    show_conf: A[bool, "draw scores"] = True
    show_boxes: A[bool, "draw boxes"] = True
    line_width: A[int | None, Gt(0), "line width in pixels"] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    format: A[str, "torchscript, ptl, onnx, openvino, ncnn, mlu270, ..."] = "torchscript"
    imgsz: A[int | tuple[int, int], "input size in pixels"] = 640
    batch: A[int, Ge(1), "pictures per forward"] = 1
    dynamic: A[bool, "any batch and size at run time"] = False
    simplify: A[bool, "simplify the graph"] = True
    opset: A[int | None, Ge(12), "ONNX operator set, 12 to 20"] = None
    nms: A[bool, "final boxes inside the graph; False gives the decoded maps"] = True
    conf: A[float, Share, "lowest score kept by the graph"] = 0.25
    iou: A[float, Share, "overlap above which the weaker box goes"] = 0.7
    max_det: A[int, Ge(1), "rows of the result"] = 300
    agnostic_nms: A[bool, "boxes of different classes suppress each other"] = False
    activation: A[
        Literal["", "relu", "leaky_relu", "hardswish"],
        "replace SiLU by this: other results, train on with it",
    ] = ""
    int8: A[bool, "integer scales from pictures, and what they cost, where the format has them"] = False
    calibrate: A[str, "pictures to find the scales with; those of source= if not given"] = ""
    output: A[str, "where to write; beside the weights if not given"] = ""
    source: A[str, "pictures to verify with; the data set's or drawn ones if not given"] = ""
    data: A[str, "also compare the mAP on this data set (data.yaml, folder, COCO json)"] = ""
    verify: A[bool, "reopen the artefact in its runtime and compare boxes"] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    formats: A[tuple[str, ...], "export formats beside the model: all, or onnx,openvino,..."] = ("all",)
    imgsz: A[int | tuple[int, int], "input size in pixels"] = 640
    data: A[str, "also measure the mAP on this data set (data.yaml, folder, COCO json)"] = ""
    source: A[str, "pictures to verify and to time with; those of data= or drawn ones if not given"] = ""
    rival: A[str, "another exporter's file of the same model, measured beside ours"] = ""
    batches: A[tuple[A[int, Ge(1)], ...], "other batch sizes to try for images/s"] = (2, 8)
    rounds: A[int, Ge(1), "turns that each one gets, one after the other"] = 5
    n: A[int, Ge(1), "timed passes of a turn"] = 10
    rest: A[int, Ge(0), "ms of rest before a turn: threads of the one before spin on for up to 40"] = 50
    dynamic: A[bool, "write what takes any batch and size"] = False
    nms: A[bool, "final boxes inside the graph; False: on the host"] = True
    conf: A[float, Share, "lowest score kept"] = 0.25
    iou: A[float, Share, "overlap above which the weaker box goes"] = 0.7
    max_det: A[int, Ge(1), "most boxes per picture"] = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainVerb:
    """Train a detector."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValVerb:
    """Measure a detector on a data set."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: JudgedDataConfig = field(default_factory=JudgedDataConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    look: LookConfig = field(default_factory=LookConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictVerb:
    """Find objects in pictures, videos or a camera."""

    model: ModelConfig = field(default_factory=ModelConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    look: LookConfig = field(default_factory=LookConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportVerb:
    """Write a model for another runtime, reopen it there and compare the boxes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkVerb:
    """Write a model in every export format and run all side by side: speed by stages, memory, mAP."""

    model: ModelConfig = field(default_factory=ModelConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoVerb:
    """Describe a model: family, size, parameters, GFLOPs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    imgsz: A[int | tuple[int, int], "input size for the GFLOPs"] = 640
    detailed: A[bool, "also every row: parameters, GFLOPs, shapes of its maps"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileVerb:
    """Time a model forward and backward, by row or by operator, on a device; GFLOPs and memory beside it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    by: A[Literal["layers", "operators", "model"], "what the lines of the table are"] = "layers"
    imgsz: A[int | tuple[int, int], "input size in pixels"] = 640
    batch: A[int, Ge(1), "pictures per forward"] = 1
    n: A[int, Ge(1), "times each is run; the table has medians"] = 5
    device: DeviceConfig = field(default_factory=DeviceConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertVerb:
    """Write a weights file in another layout, read it again and compare every bit."""

    model: A[str, "weights file (.pt, .pth, .safetensors)"] = ""
    format: A[
        Literal["anyolo", "safetensors", "state_dict", "legacy"],
        "state_dict: upstream's tensor names; legacy: the same for PyTorch 1.3 to 1.6",
    ] = "anyolo"
    output: A[str, "where to write; beside the model if not given"] = ""
    family: A[str, "family of a weights file that fits several"] = ""
    half: A[bool, "store floats as float16"] = False
    strip: A[bool, "write the model itself anew, without optimizer and training state"] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorsVerb:
    """Judge the anchors of a model by the boxes of a data set, and fit new ones."""

    data: A[str, "data.yaml, folder, COCO json or Darknet .data file"] = ""
    split: A[Literal["train", "val", "test"], "which pictures"] = "train"
    imgsz: A[int | tuple[int, int], "input size in pixels, one number or height,width"] = 640
    model: ModelConfig = field(default_factory=ModelConfig)
    n: A[int, Ge(0), "how many anchors to fit; 0: as many as the model has, 9 without a model"] = 0
    anchor_t: A[float, Gt(1), "an anchor fits boxes whose sides are within so many times its own"] = 4.0
    generations: A[int, Ge(0), "random changes tried after the k-means"] = 1000
    seed: A[int, Ge(0), "seed of the fit"] = 0
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesVerb:
    """List the devices of this machine, what each can do, and what is missing for those that are not here."""

    device: A[str, DeviceWords, "only this backend; its operator facts and rules are listed too"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerb:
    """List every operator of a job and what a backend would do with it, on a plain CPU."""

    model: ModelConfig = field(default_factory=ModelConfig)
    backend: A[str, "directml, mlu, mlu270, catch16, npu, mps, xpu"] = ""
    mode: A[Literal["train", "val", "predict", "export"], "the job"] = "train"
    imgsz: A[int | tuple[int, int], "input size in pixels"] = 64
    optimizer: A[Literal["SGD", "Adam", "AdamW", "RMSProp"], "of the training step"] = "SGD"
    output: A[str, "also write the inventory here (.json or .html)"] = ""
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedModelConfig(ModelConfig):
    model: A[str, "weights file (.pt), model name or YAML of rows to examine the device with"] = "yolov8n"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorVerb:
    """Compare a device with the CPU, number by number, and look for what makes this machine slow."""

    model: ExaminedModelConfig = field(default_factory=ExaminedModelConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    imgsz: A[int | tuple[int, int], "input size in pixels"] = 160
    output: A[str, "file or folder of the report to attach to an issue; the current folder if not given"] = ""
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoVerb:
    """Draw a data set, train on it from nothing, evaluate, export, verify, draw the result. Offline."""

    seed: A[int, Ge(0), "seed of the pictures and of the training"] = 0
    device: DeviceConfig = field(default_factory=DeviceConfig)
    run: RunConfig = field(default_factory=RunConfig)
