"""tools/import_checkpoint.py, run as a program on files that it finds in the world's names."""

import json
import subprocess
import sys
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from hpcvideo.models import create_model

TOOL = Path(__file__).resolve().parents[2] / "tools" / "import_checkpoint.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )


def test_a_file_of_the_public_code_becomes_our_weights(tmp_path):
    torch.manual_seed(0)
    source = create_model("tsm_resnet18", 6, 8)
    state = {}
    for name, value in source.state_dict().items():
        wrapped = name.replace("conv1.weight", "conv1.net.weight") if name.startswith("layer") else name
        state["module.new_fc." + name[3:] if name.startswith("fc.") else f"module.base_model.{wrapped}"] = value
    file = tmp_path / "TSM_jester_RGB_resnet18_shift8_blockres_avg_segment8_e25.pth"
    torch.save({"epoch": 25, "state_dict": state | {"module.left_over": torch.zeros(2)}}, file)
    out = tmp_path / "ours" / "weights.safetensors"
    ended = run(file, "--out", out, "--json")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["model"], report["num_classes"], report["frames"]) == ("tsm_resnet18", 6, 8)
    assert report["options"] == {"shift_fraction": 8, "shift_place": "blockres"}
    assert report["unused"] == ["module.left_over"]
    written = safetensors.torch.load_file(out)
    assert written.keys() == source.state_dict().keys()
    assert all(torch.equal(written[name], value) for name, value in source.state_dict().items())
    with safetensors.safe_open(out, "pt") as opened:
        about = json.loads(opened.metadata()["hpcvideo"])
    model = create_model(about["model"], about["num_classes"], about["frames"], **about["options"])
    model.load_state_dict(written)


def test_bad_input_ends_with_two_and_a_sentence(tmp_path):
    file = tmp_path / "resnet18.pth"
    torch.save(create_model("tsn_resnet18", 3, 8).state_dict(), file)
    ended = run(file, "--out", tmp_path / "out.safetensors")
    assert ended.returncode == 2
    assert "give --model" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run(file, "--out", tmp_path / "out.pth", "--model", "tsm_resnet18").returncode == 2
    ended = run(
        file, "--out", tmp_path / "out.safetensors", "--model", "tsm_resnet18", "--frames", 8, "--num-classes", 4,
        "--new-head", "--option", "shift_place=block",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "the classifier is new" in ended.stdout
    assert safetensors.torch.load_file(tmp_path / "out.safetensors")["fc.bias"].shape == (4,)
