"""The colours of stored frames: what the video means, by the formulas of H.273 in floating point."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from av.video.reformatter import ColorRange, Colorspace

from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.decode import encode_video
from hpcvideo.shards.inputs.pixels import frame_to_jpeg, planes_to_jpeg, stored_size
from hpcvideo.shards.records import StoredFrame

from ..generated import source_of

WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722)}
TAGS = {"601": 6, "709": 1, "untagged": 2}


def yuv_frame(width: int, height: int, tag: str, full_range: bool) -> tuple[av.VideoFrame, list[np.ndarray]]:
    """A yuv420p frame of smooth random colours, and its planes."""
    random = np.random.default_rng(7)
    planes = []
    for index, (rows, columns) in enumerate([(height, width), *2 * [((height + 1) // 2, (width + 1) // 2)]]):
        low, high = (40, 210) if index == 0 else (90, 166)
        coarse = random.integers(low, high, (rows // 16 + 2, columns // 16 + 2)).astype(np.uint8)
        planes.append(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC))
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, pixels in zip(frame.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = pixels
        plane.update(padded.tobytes())
    frame.colorspace, frame.color_range = TAGS[tag], 2 if full_range else 1
    return frame, planes


def exact_rgb(planes: list[np.ndarray], tag: str, full_range: bool) -> np.ndarray:
    """float [height, width, 3]: H.273, 8.3, equations for KR and KB; chroma repeated to full size."""
    red_weight, blue_weight = WEIGHTS["709" if tag == "709" else "601"]
    zero, luma_span, chroma_span = (0, 255, 255) if full_range else (16, 219, 224)
    luma, blue, red = (plane.astype(float) for plane in planes)
    height, width = luma.shape
    blue, red = (np.kron(plane, np.ones((2, 2)))[:height, :width] for plane in (blue, red))
    luma, blue, red = (luma - zero) / luma_span, (blue - 128) / chroma_span, (red - 128) / chroma_span
    r = luma + 2 * (1 - red_weight) * red
    b = luma + 2 * (1 - blue_weight) * blue
    g = (luma - red_weight * r - blue_weight * b) / (1 - red_weight - blue_weight)
    return np.clip(np.stack([r, g, b], -1) * 255, 0, 255)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("tag", ["601", "709", "untagged"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_are_those_of_the_video_at_its_own_size(tag, full_range):
    frame, planes = yuv_frame(192, 128, tag, full_range)
    stored = simplejpeg.decode_jpeg(frame_to_jpeg(frame, Encoding(quality=100)))
    exact = exact_rgb(planes, tag, full_range)
    assert psnr(stored, exact) > 42
    assert np.abs((stored - exact).mean((0, 1))).max() < 0.5  # no cast
    wrong = "601" if tag == "709" else "709"
    assert psnr(stored, exact) > psnr(stored, exact_rgb(planes, wrong, full_range)) + 8
    assert psnr(stored, exact) > psnr(stored, exact_rgb(planes, tag, not full_range)) + 8


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1280, 720), (360, 640)])
@pytest.mark.parametrize(("tag", "full_range"), [("601", False), ("709", False), ("601", True)])
def test_shrunk_planes_are_as_near_to_the_truth_as_shrunk_rgb(width, height, tag, full_range):
    frame, planes = yuv_frame(width, height, tag, full_range)
    stored = simplejpeg.decode_jpeg(frame_to_jpeg(frame, Encoding(quality=95)))
    size = stored.shape[1], stored.shape[0]
    exact = cv2.resize(exact_rgb(planes, tag, full_range), size, interpolation=cv2.INTER_AREA)
    through_rgb = frame.reformat(
        format="rgb24", src_colorspace=Colorspace.ITU709 if tag == "709" else Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG, dst_color_range=ColorRange.JPEG,
    ).to_ndarray()  # fmt: skip
    through_rgb = cv2.resize(through_rgb, size, interpolation=cv2.INTER_AREA)
    reference = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(through_rgb, 95, colorsubsampling="420"))
    assert psnr(stored, exact) > 36
    assert psnr(stored, exact) > psnr(reference, exact) - 0.5


@pytest.mark.parametrize(("name", "rotation"), [("nasa_rotated_17f.mp4", 90), ("rotated90.mov", -90)])
def test_planes_are_turned_as_pixels_are(zoo, name, rotation):
    with av.open(str(zoo / name)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == rotation
        upright = np.rot90(frame.to_ndarray(format="rgb24"), round(rotation / 90) % 4)
        stored = simplejpeg.decode_jpeg(frame_to_jpeg(frame, Encoding(short_side=4096, quality=100)))
    assert stored.shape == upright.shape
    assert psnr(stored, upright) > 32


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv444p", "yuv420p10le", "gray"])
@pytest.mark.parametrize(("width", "height"), [(98, 66), (97, 65)])
def test_other_pixel_formats_and_odd_sizes_are_stored_too(tmp_path: Path, pixel_format, width, height):
    path = tmp_path / "a.mkv"
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2] = (200, 80, 60)
    picture[:, width // 2 :] = (60, 90, 190)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)))
        container.mux(stream.encode())
    stored: list[StoredFrame] = []
    facts = encode_video(source_of(path), Encoding(quality=95), stored.append)
    assert (facts.width, facts.height, facts.num_frames) == (width, height, 3)
    image = simplejpeg.decode_jpeg(stored[0].jpeg).astype(int)
    expected = picture if pixel_format != "gray" else picture @ np.array([0.299, 0.587, 0.114])[:, None] * np.ones(3)
    inner = (slice(8, -8), slice(8, width // 2 - 8))
    assert np.abs(image[inner].mean((0, 1)) - expected[inner].mean((0, 1))).max() < 5


@pytest.mark.parametrize("short_side", [256, 90])
def test_a_turned_video_shrinks_as_its_upright_pixels_do(zoo, short_side):
    with av.open(str(zoo / "nasa_rotated_17f.mp4")) as container:
        frame = next(container.decode(video=0))
        upright = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
        stored = simplejpeg.decode_jpeg(frame_to_jpeg(frame, Encoding(short_side=short_side, quality=95)))
    size = stored_size(upright.shape[1], upright.shape[0], short_side)
    assert size[1] % 2 == (short_side == 256)  # 256 x 455, and 90 x 160
    assert (stored.shape[1], stored.shape[0]) == size
    assert psnr(stored, cv2.resize(upright, size, interpolation=cv2.INTER_AREA)) > 30


def test_equal_frames_give_equal_bytes():
    frame, _ = yuv_frame(640, 360, "709", False)
    again, _ = yuv_frame(640, 360, "709", False)
    assert frame_to_jpeg(frame, Encoding()) == frame_to_jpeg(again, Encoding())


@pytest.mark.parametrize(("width", "height"), [(455, 256), (256, 455), (455, 455), (33, 17), (454, 256)])
def test_a_jpeg_of_odd_size_depends_on_its_own_pixels_alone(width: int, height: int) -> None:
    """TurboJPEG reads luma to the next even width and height: what lies behind the array must not reach the picture."""
    random = np.random.default_rng(3)
    pixels = random.integers(0, 255, (height, width)).astype(np.uint8)
    chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
    jpegs = set()
    for behind in (0, 77, 255):
        memory = np.full((height + 2) * (width + 2), behind, np.uint8)
        luma = memory[: height * width].reshape(height, width)
        luma[...] = pixels
        jpegs.add(planes_to_jpeg(luma, chroma, chroma, 95))
    assert len(jpegs) == 1
    shown = simplejpeg.decode_jpeg(jpegs.pop(), colorspace="GRAY")[..., 0]
    assert np.abs(shown.astype(int) - pixels)[-1].mean() < 8, "the last row is the picture's own"
    assert np.abs(shown.astype(int) - pixels)[:, -1].mean() < 8, "the last column is the picture's own"
