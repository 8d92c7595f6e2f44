"""The config of a run: every key, its meaning and its bounds. Unknown keys are errors.

The config says nothing of ranks, nodes or devices: the same file runs alone and on 1,536 GPUs.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hpcvideo.config.batch_norm import BatchNormConfig
from hpcvideo.config.checkpoint import CheckpointConfig
from hpcvideo.config.faults import FaultsConfig
from hpcvideo.config.optimizers import OptimizerConfig, SgdConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedOptions(BaseModel):
    """A task or method by name, with options that only it knows and checks."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    def options(self) -> dict[str, Any]:
        """Every key but the name."""
        return dict(self.__pydantic_extra__ or {})


class ModelConfig(_Section):
    """Which network, and how many frames of a clip it sees."""

    name: str
    frames: Annotated[int, Field(ge=1)] = 8
    options: dict[str, Any] = {}
    init: Annotated[
        Path | Literal["none"],
        Field(description="a weight file to start from, with torchvision's, MIT TSM's or mmaction2's names; or none"),
    ] = "none"
    new_head: Annotated[bool, Field(description="with init: the classifier starts anew, whatever the file has of it")] = True

    @field_validator("init", mode="before")
    @classmethod
    def _none_is_no_path(cls, value: Any) -> Any:
        return "none" if value in (None, "none") else Path(value) if isinstance(value, str) else value


class SamplingConfig(_Section):
    """Which frames make a clip: `segments` spreads them over the whole video (TSN), `dense` takes a window of it. `stream`
    shows the training videos as one, frame after frame, and scores as `dense` with neighbouring frames. `snippets` takes
    many short pieces of a long video (ETAD)."""

    kind: Literal["segments", "dense", "stream", "snippets"] = "segments"
    window: Annotated[int, Field(ge=1, description="frames that a dense clip spans")] = 64
    snippets: Annotated[int | None, Field(ge=1, description="of kind: snippets; model.frames must divide by it")] = None
    frame_stride: Annotated[int, Field(ge=1, description="frames from one frame of a snippet to the next")] = 1
    snippet_window: Annotated[
        int | None, Field(ge=1, description="frames of the video that the snippets span, at a random place; absent: all")
    ] = None

    @model_validator(mode="after")
    def _snippets_are_counted(self) -> SamplingConfig:
        if (self.kind == "snippets") != (self.snippets is not None):
            raise ValueError("kind: snippets and snippets, their number, belong together; give both or neither")
        return self
    pace: Annotated[
        Literal["fastest", "video"] | Annotated[float, Field(gt=0)],
        Field(description="of a stream: frames a second, or those of the video, or as fast as they are learnt from"),
    ] = "fastest"


class StageConfig(_Section):
    """Shard sets copied to the nodes' own disks or RAM; a run that is started again keeps what is there whole."""

    to: Annotated[str, Field(pattern=r"^[/~]", description="a folder on each node; {node} and {job} stand for their names")]
    mode: Literal["broadcast", "partition"] = "broadcast"
    when: Literal["before", "beside"] = "before"
    keep: Annotated[bool, Field(description="whether copies, also those it found there, stay when the run has ended")] = True
    limit_gigabytes: Annotated[
        float | None, Field(gt=0, description="of partition: room for shards of past epochs too; absent: they go")
    ] = None


class RandAugmentConfig(_Section):
    """Random image operations on every clip, alike on its frames (RandAugment, arXiv 1909.13719)."""

    operations: Annotated[int, Field(ge=1, le=10, description="operations a clip")] = 2
    magnitude: Annotated[float, Field(ge=0, le=10, description="their strength, 0 none to 10 strongest")] = 9.0


class DataConfig(_Section):
    """Shard sets, how clips are cut from them, in which order and by whom."""

    train: Path
    validation: Path | None = None
    features: Annotated[
        Path | None, Field(description="features of both sets' videos, from `hpcvideo features extract`, in place of frames")
    ] = None
    sampling: SamplingConfig = SamplingConfig()
    size: Annotated[int, Field(ge=8, description="height and width of a clip, pixels")] = 224
    crop: Literal["center", "multi_scale"] = "multi_scale"
    short_side: Annotated[int, Field(ge=8, description="short side before a centre crop, pixels")] = 256
    flip: Annotated[bool, Field(description="mirror half of the training clips")] = True
    flip_labels: Annotated[
        dict[str, str] | None,
        Field(description="labels that change places in a mirror, one of each pair; {} says that none does"),
    ] = None
    rand_augment: RandAugmentConfig | None = None
    order: Annotated[
        Literal["global", "node_local"], Field(description="node_local: a node needs only its share of the shards an epoch")
    ] = "global"
    virtual_nodes: Annotated[
        int | None, Field(ge=1, description="of order node_local; the nodes of a run must divide it, it the global batch")
    ] = None
    workers: Annotated[int, Field(ge=0, description="decoding workers a rank; 0 decodes in the training thread")] = 2
    worker_kind: Literal["spawn", "fork", "thread"] = "spawn"
    prefetch: Annotated[int, Field(ge=1, description="micro-batches read ahead")] = 2
    on_bad_clip: Annotated[
        Literal["stop", "skip"], Field(description="what to do where stored bytes are damaged; skip takes another clip")
    ] = "stop"
    max_bad_videos: Annotated[
        int, Field(ge=0, description="with skip: more bad videos than these, over all ranks since the start, end the run")
    ] = 100
    stage: StageConfig | None = None

    @model_validator(mode="after")
    def _crop_fits(self) -> DataConfig:
        if self.size > self.short_side:
            raise ValueError(f"size {self.size} is larger than short_side {self.short_side}; a crop cannot grow")
        return self

    @model_validator(mode="after")
    def _order_is_whole(self) -> DataConfig:
        if (self.order == "node_local") != (self.virtual_nodes is not None):
            raise ValueError("order: node_local and virtual_nodes belong together; give both or neither")
        return self

    @model_validator(mode="after")
    def _stage_fits_the_order(self) -> DataConfig:
        if self.stage and self.stage.mode == "partition" and self.order != "node_local":
            raise ValueError("stage.mode: partition needs order: node_local; else any node may read any shard")
        if self.stage and self.stage.limit_gigabytes is not None and self.stage.mode != "partition":
            raise ValueError("stage.limit_gigabytes belongs to stage.mode: partition; broadcast brings the whole set")
        return self

    @model_validator(mode="after")
    def _flip_labels_pair_up(self) -> DataConfig:
        if self.flip_labels and not self.flip:
            raise ValueError("flip_labels has no effect with flip: false; take it out or set flip: true")
        partners: dict[str, str] = {}
        for one, other in (self.flip_labels or {}).items():
            for label, partner in ((one, other), (other, one)):
                if partners.setdefault(label, partner) != partner:
                    raise ValueError(f"flip_labels gives {label!r} two partners, {partners[label]!r} and {partner!r}")
        return self


class RecipeConfig(_Section):
    """How the weights change. `global_batch` is the authority: micro batch and accumulation follow from it."""

    global_batch: Annotated[int, Field(ge=1, description="clips an update, over all ranks")]
    micro_batch: Annotated[int | None, Field(ge=1, description="clips a forward on one rank; derived if absent")] = None
    epochs: Annotated[float | None, Field(gt=0)] = None
    steps: Annotated[int | None, Field(ge=1, description="updates; instead of epochs")] = None
    base_lr_per_64_clips: Annotated[float, Field(gt=0)] = 0.01
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    decay: Literal["step", "cosine", "polynomial", "constant"] = "cosine"
    decay_epochs: tuple[Annotated[float, Field(gt=0)], ...] = ()
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    decay_power: Annotated[float, Field(gt=0, description="of decay: polynomial, which falls to 0 by (1 - t)^power")] = 2.0
    optimizer: OptimizerConfig = SgdConfig()
    boost_head: Annotated[bool, Field(description="head weight LR x5, head bias x10 (TSM's fc_lr5)")] = False
    encoder_lr_scale: Annotated[
        float, Field(gt=0, description="times the rate, for the encoder of a model in two parts (ETAD: 0.001)")
    ] = 1.0
    gradient_clip: Annotated[float, Field(ge=0, description="largest gradient norm; 0 does not clip")] = 20.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="share of a label spread over all classes")] = 0.0
    mixup: Annotated[
        float, Field(ge=0, le=4, description="alpha of mixup's Beta law; clips mix within a micro-batch; 0 does not mix")
    ] = 0.0
    ema_decay: Annotated[
        float | None, Field(gt=0, lt=1, description="of averaged weights, which are what is scored; absent: none are kept")
    ] = None

    batch_norm: BatchNormConfig = BatchNormConfig()
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Field(description="of forward and backward; weights and optimizer stay in fp32")
    ] = "fp32"

    @model_validator(mode="after")
    def _one_length(self) -> RecipeConfig:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, not both and not neither")
        if self.decay == "step" and not self.decay_epochs:
            raise ValueError("decay: step needs decay_epochs, e.g. [40, 80]")
        if self.decay != "step" and self.decay_epochs:
            raise ValueError(f"decay_epochs has no effect with decay: {self.decay}; take it out or use decay: step")
        return self


class EvaluationConfig(_Section):
    """When the validation set is scored (always at the end, if there is one), and with how many views of each video."""

    every_epochs: Annotated[float | None, Field(gt=0)] = None
    batch: Annotated[int, Field(ge=1, description="clips a rank scores at once")] = 8
    clips: Annotated[int, Field(ge=1, description="clips a video, spread over it")] = 1
    crops: Annotated[
        Literal[1, 3, 10], Field(description="1: centre; 3: along the longer side; 10: corners, centre, all mirrored too")
    ] = 1
    full_resolution: Annotated[bool, Field(description="crops of data.short_side instead of data.size")] = False
    window_overlap: Annotated[
        float, Field(ge=0, le=0.9, description="what neighbouring windows share where actions are found in snippet_window")
    ] = 0.5
    average: Annotated[
        Literal["logits", "softmax", "max"],
        Field(description="what is averaged over the views of a video; max: the largest logit of each class counts"),
    ] = "logits"


class LoggingConfig(_Section):
    """What a run tells about its steps."""

    every_steps: Annotated[
        int, Field(ge=1, description="how often a step is written to events.jsonl; the line covers all since the last one")
    ] = 10
    trace_step: Annotated[
        int | None, Field(ge=1, description="update of which every rank notes when its phases begin and end, for a report")
    ] = None


class RunConfig(_Section):
    """A run = config x task x method."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task: NamedOptions
    method: NamedOptions = NamedOptions(name="end_to_end")
    model: ModelConfig
    data: DataConfig
    recipe: RecipeConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    faults: FaultsConfig = FaultsConfig()

    @model_validator(mode="after")
    def _views_fit(self) -> RunConfig:
        if self.evaluation.crops == 10 and not self.data.flip:
            raise ValueError("evaluation.crops: 10 mirrors half of the crops, but data.flip is false; use crops: 3")
        if self.evaluation.crops == 10 and self.data.flip_labels:
            raise ValueError("evaluation.crops: 10 mirrors half of them, and data.flip_labels changes their labels; use 3")
        if self.data.sampling.kind == "dense" and self.data.sampling.window < self.model.frames:
            raise ValueError(
                f"data.sampling.window = {self.data.sampling.window} has no room for model.frames = {self.model.frames}"
            )
        if self.data.sampling.snippets and self.model.frames % self.data.sampling.snippets:
            raise ValueError(
                f"model.frames = {self.model.frames} does not divide into data.sampling.snippets = "
                f"{self.data.sampling.snippets}; model.frames is the number of snippets times the frames of one"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as plain JSON types; the name apart, equal runs have equal dicts."""
        return self.model_dump(mode="json")

    def deciding(self) -> dict[str, Any]:
        """`resolved` without what may differ when a run goes on: name, logging, checkpoints, evaluation, faults, loader
        workers and read-ahead, how fast a stream comes, what to do with bad clips, and where the shard sets lie and are
        staged to (which set it is, and which features, checkpoints tell by their digests).

        A pipeline counts as end_to_end: with equal micro-batches both train alike, and each resumes what the other left. Of
        the options of both only the wire's type counts.
        """
        left_out = ("name", "logging", "checkpoint", "evaluation", "faults")
        values = {key: value for key, value in self.resolved().items() if key not in left_out}
        places = ("train", "validation", "stage", "features")
        free = (*places, "workers", "worker_kind", "prefetch", "on_bad_clip", "max_bad_videos")
        if values["model"]["init"] != "none":  # which file it is; where it lies may change
            values["model"] = {**values["model"], "init": Path(values["model"]["init"]).name}
        values["data"] = {key: value for key, value in values["data"].items() if key not in free}
        sampling = values["data"]["sampling"]
        values["data"]["sampling"] = {key: value for key, value in sampling.items() if key != "pace"}
        # Stages, buckets and ZeRO spread the same training over ranks in another way; the wire's type rounds differently.
        wire = values["method"].get("wire", "fp32")
        if values["method"]["name"] in ("pipeline", "end_to_end"):
            values["method"] = {"name": "end_to_end", **({} if wire == "fp32" else {"wire": wire})}
        elif values["method"]["name"] in ("sideways", "skip_sideways", "delayed"):
            spread = ("stages", "placement")
            values["method"] = {key: value for key, value in values["method"].items() if key not in spread}
        elif values["method"]["name"] == "progressive":
            harmless = ("bucket_megabytes", "evaluation", "evaluation_bins")
            values["method"] = {key: value for key, value in values["method"].items() if key not in harmless}
        return values

    def digest(self) -> str:
        """Sixteen hex digits of `deciding`: equal for two configs that train alike."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()[:16]
