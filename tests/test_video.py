"""Videos, written and read a frame at a time."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from nl_detectron.errors import UserError
from nl_detectron.video import count_frames, open_video, read_frames, write_video

FPS = 12.5


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    levels = list(range(0, 250, 25))
    assert write_video(tmp_path / "video.mp4", map(grey, levels), FPS) == len(levels)
    capture = open_video(tmp_path / "video.mp4")
    assert capture.get(cv2.CAP_PROP_FPS) == FPS
    assert count_frames(capture) == len(levels)
    frames = list(read_frames(capture))
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert np.abs([frame.mean() for frame in frames] - np.array(levels)).max() < 5  # it is compressed
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_frames_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Writer:
        def __init__(self, *arguments: object) -> None:
            self._writer = WRITER(*arguments)

        def __getattr__(self, name: str) -> object:
            return getattr(self._writer, name)

        def write(self, frame: np.ndarray) -> None:
            events.append(f"wrote {frame[0, 0, 0]}")
            self._writer.write(frame)

    def frames() -> Iterator[np.ndarray]:
        for level in range(3):
            events.append(f"made {level}")
            yield grey(level)

    WRITER = cv2.VideoWriter  # noqa: N806
    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    write_video(tmp_path / "video.mp4", frames(), FPS)
    assert events == "made 0,wrote 0,made 1,wrote 1,made 2,wrote 2".split(",")


def test_an_odd_side_loses_a_pixel(tmp_path: Path) -> None:
    write_video(tmp_path / "video.mp4", [grey(9, 47, 63)], FPS)
    assert [frame.shape for frame in read_frames(open_video(tmp_path / "video.mp4"))] == [(46, 62, 3)]


def frames_of_two_sizes() -> Iterator[np.ndarray]:
    yield grey(0)
    yield grey(0, 20, 20)  # which OpenCV leaves out without a word


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], FPS, "--video-input must have frames; it has none."),
        ([grey(0)], 0.0, "'{path}' cannot be written: 64 x 48 pixels at 0 frames a second, mp4v."),
        (
            frames_of_two_sizes(),
            FPS,
            "'{path}' cannot be written: 64 x 48 pixels at 12.5 frames a second, mp4v.",
        ),
    ],
    ids=["no frames", "no rate", "two sizes"],
)
def test_what_cannot_be_written(frames: object, fps: float, message: str, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    path.write_text("what was there before")
    with pytest.raises(UserError) as refused:
        write_video(path, frames, fps)
    assert str(refused.value).startswith(message.format(path=path))
    assert path.read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_what_stops_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield grey(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "video.mp4", frames(), FPS)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_what_is_no_video(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    message = f"--video-input must be a file; got '{path}', and there is no such file."
    if content is not None:
        path.write_bytes(content)
        message = f"--video-input must be a video that OpenCV reads; got '{path}'."
    with pytest.raises(UserError) as refused:
        open_video(path)
    assert str(refused.value) == message


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    """With which OpenCV ends the process."""
    path = tmp_path / os.fsdecode(b"bad\xff.mp4")
    path.touch()
    with pytest.raises(UserError, match=r"--video-input must have a name in UTF-8; got '.*bad\\udcff\.mp4'"):
        open_video(path)
    with pytest.raises(UserError, match=r"--output must have a name in UTF-8; got '.*bad\\udcff\.mp4'"):
        write_video(path, [grey(0)], 12.5)
