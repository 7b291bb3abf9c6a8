"""Which frames of a file a clip has."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from made_videos import numbered, numbers_of, write_video
from nl_video.reading import UnreadableVideoError, even_starts, random_start, read_clips


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx")]
)
def test_frames_by_number(name: str, codec: str, tmp_path: Path) -> None:
    """Of several clips, in any container, also behind the first key frames."""
    path = write_video(tmp_path / name, numbered(40), codec=codec)
    clips = read_clips(path, lambda count: [0, 9, 30], frames=3, step=2)
    assert clips.shape == (3, 3, 48, 64, 3)
    assert numbers_of(clips) == [[0, 2, 4], [9, 11, 13], [30, 32, 34]]
    assert numbers_of(read_clips(path, lambda count: [17], frames=2, step=5)) == [[17, 22]]


def test_a_video_that_is_turned_as_phones_write_it(tmp_path: Path) -> None:
    """By a matrix in the file: as OpenCV shows it."""
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    frames[:, :16, :16] = 255  # what is at the upper left is at the upper right then
    path = write_video(tmp_path / "a.mp4", frames)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    quarter = (0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    content[place : place + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in quarter)
    path.write_bytes(content)
    ((frame,),) = read_clips(path, lambda count: [0], frames=1, step=1)
    expected = cv2.VideoCapture(str(path)).read()[1]
    assert frame.shape == expected.shape == (64, 48, 3)
    assert frame[:12, -12:].min() > 200
    assert np.abs(frame - expected[:, :, ::-1].astype(float)).max() < 10


def test_frames_at_a_variable_rate(tmp_path: Path) -> None:
    """As of a screen: 20 frames in a time in which there would be 100."""
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number, pixels in enumerate(numbered(20)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = 5 * number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    starts = []
    read_clips(tmp_path / "a.webm", lambda count: starts.append(count) or [0], frames=1, step=1)
    assert starts == [20]


def test_frames_are_resized_one_by_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(20))
    seen = []

    def resize(frame: np.ndarray) -> np.ndarray:
        seen.append(frame.shape)
        return frame[::2, ::2]

    clips = read_clips(path, lambda count: [0, 2], frames=3, step=2, resize=resize)
    assert clips.shape == (2, 3, 24, 32, 3)
    assert numbers_of(clips) == [[0, 2, 4], [2, 4, 6]]
    assert seen == [(48, 64, 3)] * 4  # a frame of two clips once


def test_the_whole_video_is_covered(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(40))
    clips = read_clips(path, even_starts(4, span=10), frames=5, step=2)
    assert [clip[0] for clip in numbers_of(clips)] == [0, 10, 20, 30]
    assert numbers_of(clips)[-1] == [30, 32, 34, 36, 38]


def test_random_clips_begin_anywhere() -> None:
    """From the first frame to the last one that leaves room."""
    rng = np.random.default_rng(0)
    starts = {random_start(rng, 8)(12)[0] for _ in range(100)}
    assert starts == {0, 1, 2, 3, 4}
    assert random_start(rng, 8)(3) == [0]


def test_the_last_frame_of_a_short_video_is_repeated(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered(5))
    assert numbers_of(read_clips(path, even_starts(1, 12), frames=6, step=2)) == [[0, 2, 4, 4, 4, 4]]


@pytest.mark.parametrize("content", [b"", b"no video", b"\x00" * 5000])
def test_files_that_are_no_videos(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError, match=r"a\.mp4"):
        read_clips(path, even_starts(1, 2), 2, 1)
    with pytest.raises(UnreadableVideoError, match=r"none\.mp4"):
        read_clips(tmp_path / "none.mp4", even_starts(1, 2), 2, 1)


def test_a_video_that_is_cut_off(tmp_path: Path) -> None:
    """What can be decoded is used."""
    whole = write_video(tmp_path / "a.mkv", numbered(40)).read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    clips = numbers_of(read_clips(tmp_path / "half.mkv", lambda count: [2], frames=30, step=1))[0]
    assert clips[:3] == [2, 3, 4]
    assert clips == sorted(clips)
    assert len(clips) == 30


def test_a_file_with_sound_only(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UnreadableVideoError):
        read_clips(tmp_path / "a.mp4", even_starts(1, 2), 2, 1)


def test_a_video_whose_frames_change_their_size(tmp_path: Path) -> None:
    """All frames get the size of the first one."""
    parts = [
        write_video(tmp_path / f"{k}.ts", numbered(10, *size)) for k, size in enumerate([(48, 64), (32, 48)])
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert read_clips(tmp_path / "both.ts", lambda count: [0], frames=16, step=1).shape == (1, 16, 48, 64, 3)


@pytest.mark.parametrize("name", ["a.avi", "a.ts"])
def test_containers_that_cannot_be_sought_in_well(name: str, tmp_path: Path) -> None:
    """Frames stay in order, from the first one on."""
    path = write_video(tmp_path / name, numbered(40), codec="libx264", gop=12)
    for start in (0, 1, 13, 20):
        (numbers,) = numbers_of(read_clips(path, lambda count, start=start: [start], frames=8, step=2))
        assert np.diff(numbers).tolist() == [2] * 7
        assert abs(numbers[0] - start) <= 2
