"""Files of weights: read without running anything in them, checked against their names."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from hpcvideo.errors import InputError
from hpcvideo.models import create_model, load_weights
from hpcvideo.models.checkpoint_file import model_of_tsm_name, parse_tsm_name, read_checkpoint

NAME = "TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50"


def small():
    return create_model("tsm_resnet18", 3, 4, width=8)


def public_checkpoint(model):
    state = {}
    for name, value in model.state_dict().items():
        wrapped = name.replace("conv1.weight", "conv1.net.weight") if name.startswith("layer") else name
        state["module.new_fc." + name[3:] if name.startswith("fc.") else f"module.base_model.{wrapped}"] = value
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "epoch": 50, "arch": "resnet50", "state_dict": state, "optimizer": optimizer.state_dict(),
        "best_prec1": np.float64(71.2),
    }  # fmt: skip


def test_a_whole_training_checkpoint_of_the_public_code_loads(tmp_path):
    source, model = small(), small()
    file = tmp_path / f"{NAME.replace('segment8', 'segment16')}.pth.tar"
    torch.save(public_checkpoint(source), file)
    report = load_weights(model, file)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True))
    assert report.notes == ("trained with 16 frames, the model has 4",)


def test_the_old_torch_format_loads(tmp_path):
    source, model = small(), small()
    file = tmp_path / "old.pth"
    torch.save(source.state_dict(), file, _use_new_zipfile_serialization=False)
    load_weights(model, file)
    assert torch.equal(model.fc.weight, source.fc.weight)


def test_safetensors_load_by_their_ending(tmp_path):
    source, model = small(), small()
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(source.state_dict(), file)
    load_weights(model, str(file))
    assert torch.equal(model.fc.weight, source.fc.weight)


class Payload:
    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_in_a_file_is_not_run(tmp_path):
    payload = Payload()
    payload.target = str(tmp_path / "it-ran")
    for file, save in ((tmp_path / "evil.pth", torch.save), (tmp_path / "evil.pkl", _pickle)):
        save({"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": payload}, file)
        with pytest.raises(InputError, match=r"evil\.p(th|kl): (holds more than tensors|no readable torch file)"):
            read_checkpoint(file)
        assert not Path(payload.target).exists()
    weights = read_checkpoint(tmp_path / "evil.pth", run_code=True)
    assert list(weights) == ["conv1.weight"] and Path(payload.target).exists(), "asked for, it is read"


def _pickle(content, file):
    file.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_damaged_files_are_refused(tmp_path, name):
    file = tmp_path / name
    (torch.save if name.endswith("pth") else safetensors.torch.save_file)(small().state_dict(), file)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match=f"{name}: no readable"):
        read_checkpoint(file)


def test_missing_files_and_files_without_tensors_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such weight file"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="holds no named tensors"):
        read_checkpoint(tmp_path / "empty.pth")


def test_the_digest_in_a_name_is_checked(tmp_path):
    content = tmp_path / "weights.pth"
    torch.save(small().state_dict(), content)
    digest = hashlib.sha256(content.read_bytes()).hexdigest()[:8]
    right = content.rename(tmp_path / f"resnet18-{digest}.pth")
    assert read_checkpoint(right)
    wrong = right.rename(tmp_path / "resnet18-0676ba61.pth")
    with pytest.raises(InputError, match=rf"SHA-256 begins with {digest}, but its name says 0676ba61"):
        read_checkpoint(wrong)
    dated = wrong.rename(tmp_path / "run-20240131.pth")
    assert read_checkpoint(dated), "a date is no digest"


# The published files of the public code (its README).
@pytest.mark.parametrize(
    ("name", "model", "frames", "options"),
    [
        (NAME, "tsm_resnet50", 8, {"shift_fraction": 8, "shift_place": "blockres"}),
        ("TSM_kinetics_RGB_resnet50_avg_segment5_e50", "tsn_resnet50", 5, {}),
        ("TSM_kinetics_RGB_mobilenetv2_shift8_blockres_avg_segment8_e100_dense", "tsm_mobilenetv2", 8,
         {"shift_fraction": 8}),
        ("TSM_somethingv2_RGB_resnet101_shift8_blockres_avg_segment8_e45", "tsm_resnet101", 8,
         {"shift_fraction": 8, "shift_place": "blockres"}),
        ("TSM_jester_RGB_resnet50_shift4_block_tpool_avg_segment16_e25_scratch_cos_own", "tsm_resnet50", 16,
         {"temporal_pool": True, "shift_fraction": 4, "shift_place": "block"}),
    ],
)  # fmt: skip
def test_file_names_say_the_model(name, model, frames, options):
    for ending in ("", ".pth", ".pth.tar"):
        assert model_of_tsm_name(name + ending) == (model, frames, options)


def test_the_rest_of_a_file_name_is_read():
    said = parse_tsm_name("TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense_nl.pth")
    assert (said.dataset, said.modality, said.consensus, said.epochs) == ("kinetics", "RGB", "avg", 100)
    assert said.dense
    assert said.non_local
    assert parse_tsm_name("resnet50-0676ba61.pth") is None
    assert parse_tsm_name("tsm_r50_1x1x8_50e_kinetics400_rgb.pth") is None


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (NAME.replace("shift8", "shift4"), "its name says shift4, but the model's shift_fraction is 8"),
        (NAME.replace("blockres", "blockres_tpool"), "made with a temporal pool, but the model has none"),
        (NAME.replace("RGB", "Flow"), "made for Flow"),
    ],
)
def test_a_file_name_that_contradicts_the_model_is_refused(tmp_path, name, what):
    file = tmp_path / f"{name}.pth"
    torch.save(public_checkpoint(small()), file)
    with pytest.raises(InputError, match=what):
        load_weights(small(), file)


def test_the_directory_of_a_training_run_names_the_model_too(tmp_path):
    file = tmp_path / NAME.replace("shift8", "shift4") / "ckpt.best.pth.tar"
    file.parent.mkdir()
    torch.save(public_checkpoint(small()), file)
    with pytest.raises(InputError, match="shift4"):
        load_weights(small(), file)
