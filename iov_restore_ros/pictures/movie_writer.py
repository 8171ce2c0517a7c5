"""The writer of all videos: frames at their times, and the other streams of their source."""

import contextlib
import io
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from iov_restore_ros.pictures.movies import ACCURATE, Movie, MovieError, Shot, fraction

CRF = 10  # quality of H.264; lower is closer to the original
# libx264 writes the same bytes only with the same number of threads. With B frames, which are not
# in the order of their times, libav would end an MP4 of variable rate too early.
H264 = {'preset': 'veryfast', 'threads': '4', 'bf': '0'}
BT709 = 1  # of AVColorSpace, and of libswscale
BT601 = 5  # of libswscale, also its value for unknown colour spaces
MATRICES = {1: BT709, 4: 4, 7: 7, 9: 9}  # libswscale's names of AVColorSpace
LIMITED, FULL = 1, 2  # AVColorRange: black and white are 16 and 235, or 0 and 255


def movie_suffix(crf: int | None) -> str:
    """Return the suffix of the files that ``MovieWriter`` writes."""
    return '.mkv' if crf is None else '.mp4'


class MovieWriter:
    """
    Writes frames that replace those of ``source`` one by one; use it in a ``with`` statement.

    ``crf``: H.264 of that quality (0..51) in MP4; None: exactly the same pixels, FFV1 in Matroska.
    Pixel aspect ratio, colour space and range stay as in the source, and its other streams are
    copied. ``told``: lines about what is missing or different.
    """

    def __init__(self, path: Path, source: Movie, crf: int | None = CRF) -> None:
        """Open ``path``, which ends with ``movie_suffix(crf)``. Raises libav's errors."""
        self.source, self.crf = source, crf
        self.told: list[str] = []
        self.out = av.open(str(path), 'w')
        self.out.metadata.update(source.container.metadata)
        self._video: Any = None  # the stream, after the first frame
        self._waiting: list[Any] = []  # packets of other streams before that
        self._copies: dict[int, Any] = {}  # streams, by their index in the source
        self._refused: Counter[str] = Counter()  # packets of other streams

    def __enter__(self) -> 'MovieWriter':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            if self._video is not None:
                self.out.mux(self._video.encode())
            self.out.close()
            for stream, count in self._refused.items():
                self.told.append(f'{count} packets of {stream} left out: their times decrease')
        else:
            with contextlib.suppress(av.FFmpegError):  # the earlier error must be reported
                self.out.close()

    def write(self, pixels: np.ndarray, shot: Shot) -> None:
        """Write uint8 H x W x 3, RGB, in place of ``shot``. Raises libav's errors."""
        if self._video is None:
            self._begin(shot)
        coding = self._video.codec_context
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), 'rgb24').reformat(
            format=coding.pix_fmt, dst_colorspace=MATRICES.get(coding.colorspace, BT601),
            dst_color_range=coding.color_range or LIMITED, interpolation=ACCURATE, threads=1,
        )
        frame.pts, frame.time_base = shot.ticks, self.source.tick
        frame.duration = shot.decoded.duration
        self.out.mux(self._video.encode(frame))

    def copy(self, packet: Any) -> None:
        """Copy a packet of another stream of the source. Raises libav's errors."""
        if self._video is None:
            self._waiting.append(packet)
        elif packet.dts is not None and packet.stream.index in self._copies:
            begin = round(self.source.begin / fraction(packet.time_base))
            packet.dts -= begin
            packet.pts = None if packet.pts is None else packet.pts - begin
            packet.stream = self._copies[packet.stream.index]
            try:
                self.out.mux(packet)
            except av.ArgumentError:
                self._refused[packet.stream.type] += 1

    def _begin(self, shot: Shot) -> None:
        """Open all streams; the first frame shows the properties of the video."""
        frame, like = shot.decoded, self.source.stream
        height, width = shot.pixels.shape[:2]
        codec, options = ('ffv1', {}) if self.crf is None else ('libx264', H264)
        options = options if self.crf is None else {**options, 'crf': str(self.crf)}
        video: Any = self.out.add_stream(codec, rate=self.source.rate, options=options)
        coding = video.codec_context
        coding.width, coding.height, coding.time_base = width, height, self.source.tick
        if aspect := self.source.aspect or fraction(like.codec_context.sample_aspect_ratio):
            turned = width != frame.width  # upright
            coding.sample_aspect_ratio = 1 / aspect if turned else aspect
            if self.crf is None and aspect != 1:
                self.told.append(f'pixel aspect ratio {aspect}: stored by FFV1, not by Matroska')
        coding.color_primaries, coding.color_trc = frame.color_primaries, frame.color_trc
        if self.crf is None:
            coding.pix_fmt = 'bgr0'  # FFV1's RGB of 8 bits
        else:
            coding.pix_fmt = samples_for(frame.format, width, height)
            coding.colorspace = BT709 if frame.format.is_rgb else frame.colorspace
            coding.color_range = FULL if 'yuvj' in frame.format.name else frame.color_range
        video.metadata.update(like.metadata)
        self._tell(frame, coding.pix_fmt)
        self._copy_streams()
        self.out.start_encoding()
        self._video = video
        for packet in self._waiting:
            self.copy(packet)
        self._waiting.clear()

    def _copy_streams(self) -> None:
        form = self.out.format.name
        for stream in self.source.container.streams:
            if stream is self.source.stream:
                continue
            named = stream.codec_context.name if stream.codec_context else 'unknown'
            if not can_hold(form, stream):
                self.told.append(f'{stream.type} ({named}) left out: {form} cannot hold it')
                continue
            copy = self.out.add_stream_from_template(stream, opaque=True)
            copy.metadata.update(stream.metadata)
            self._copies[stream.index] = copy
            if stream.type == 'video':
                self.told.append(f'another video ({named}) only copied: one is restored')

    def _tell(self, frame: av.VideoFrame, samples: str) -> None:
        """Record what is different from ``frame`` in the written file."""
        components = frame.format.components
        if max(component.bits for component in components) > 8:
            self.told.append('bits beyond 8 lost')
        if any(component.is_alpha for component in components):
            self.told.append('alpha lost')
        if frame.interlaced_frame:
            self.told.append('interlaced: restored and written as progressive')
        if samples in ('yuv422p', 'yuv444p'):
            self.told.append(f'written as {samples}, which some players cannot play')


def samples_for(source: av.VideoFormat, width: int, height: int) -> str:
    """Return a pixel format with no less chroma than ``source`` that supports odd sides."""
    grey = len(source.components) == 1
    across = source.is_rgb or (not grey and source.chroma_width(width) == width > 1)
    down = source.is_rgb or (not grey and source.chroma_height(height) == height > 1)
    if across or width % 2 or (height % 2 and not down):
        return 'yuv444p'
    return 'yuv422p' if down else 'yuv420p'


def can_hold(form: str, stream: Any) -> bool:
    """Return whether libav's format ``form`` accepts the packets of ``stream``, by trying."""
    try:
        with av.open(io.BytesIO(), 'w', format=form) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def check_written(path: Path, frames: int) -> None:
    """Raise ``MovieError`` unless ``frames`` frames can be read from the video at ``path``."""
    with Movie(path) as movie:
        count = sum(1 for _ in movie.frames())
    if count != frames or movie.lost:
        raise MovieError(f'only {count} of {frames} frames are in the written file')
