"""Exported files are run by their own runtimes and compared with eager."""

import importlib.util

import pytest
import torch
from torch import nn

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.models import create_model, stream_frames
from hpcvideo.models import export as export_module
from hpcvideo.models.export import export_model, export_online

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="ONNX is an extra: pip install hpcvideo[export]",
)


def lively(name, **options):
    """A small net whose logits have some size, so that equality says something."""
    torch.manual_seed(3)
    model = create_model(name, 5, 4, width=16, **options)
    nn.init.normal_(model.fc.weight)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 4, 3, 48, 48))
    return model


@pytest.mark.parametrize(
    ("name", "options", "ending"),
    [
        ("tsm_resnet18", {"channels_last": True, "temporal_pool": True}, ".pt2"),
        ("i3d_resnet50", {"temporal_stride": 2}, ".pt2"),
        pytest.param("tsm_resnet18", {}, ".onnx", marks=needs_onnx),
    ],
)
def test_an_exported_clip_model_gives_eagers_logits_at_any_batch(tmp_path, name, options, ending):
    model = lively(name, **options)
    report = export_model(model, tmp_path / f"model{ending}", 48, 48)
    assert report.largest_difference < 1e-5
    assert model.training, "the caller's model stays as it was"
    clips = torch.randn(5, 4, 3, 48, 48)
    with torch.no_grad():
        expected = model.eval()(clips)
        if ending == ".pt2":
            given = torch.export.load(report.file).module()(clips)
        else:
            given = onnx_run(report.file, {"clips": clips})[0]
    assert expected.abs().max() > 0.1
    assert (given - expected).abs().max() < 1e-4 * expected.abs().max()


@needs_onnx
def test_an_online_model_runs_a_video_frame_by_frame_in_onnx(tmp_path):
    import onnx

    model = lively("tsm_mobilenetv2", causal=True, channels_last=True).eval()
    report = export_online(model, tmp_path / "online.onnx", 48, 48)
    video = torch.randn(2, 3, 3, 48, 48)
    with torch.no_grad():
        expected, shapes = stream_frames(model, video)
    state = [torch.zeros_like(shapes[name]) for name in shapes]
    for frame in range(3):
        feeds = dict(zip(report.inputs, (video[:, frame], *state), strict=True))
        logits, *state = onnx_run(report.file, feeds)
        assert (logits - expected[:, frame]).abs().max() < 1e-4 * expected.abs().max()
    operators = {node.op_type for node in onnx.load(report.file).graph.node}
    assert "Conv" in operators
    assert not {operator for operator in operators if operator.startswith("Scatter")}, "no runtime likes sliced assignment"


def onnx_run(file, feeds):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(value) for value in session.run(None, {name: feed.numpy() for name, feed in feeds.items()})]


def test_a_file_that_differs_from_eager_is_not_passed_off(tmp_path, monkeypatch):
    real = export_module._torch_runner

    def wrong(file):
        run = real(file)
        return lambda *arguments: [value * 1.01 for value in run(*arguments)]

    monkeypatch.setattr(export_module, "_torch_runner", wrong)
    with pytest.raises(OperationFailed, match=r"differs from eager by 1\.0e-02"):
        export_model(lively("tsm_resnet18"), tmp_path / "model.pt2", 48, 48)


def test_other_endings_and_models_that_cannot_stream_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.pt2 \(torch\.export\) or \.onnx"):
        export_model(create_model("tsm_resnet18", 5, 4, width=8), tmp_path / "model.trt")
    with pytest.raises(InputError, match="causal=True"):
        export_online(create_model("tsm_resnet18", 5, 4, width=8), tmp_path / "model.pt2")
    with pytest.raises(InputError, match="create_model"):
        export_model(nn.Linear(2, 2), tmp_path / "model.pt2")
