"""The reader of all videos in files: each frame with its time, and what could not be read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

# In a folder a video is recognised by these suffixes.
VIDEO_SUFFIXES = {
    '.3g2', '.3gp', '.asf', '.avi', '.dv', '.f4v', '.flv', '.h264', '.hevc', '.m2ts', '.m2v',
    '.m4v', '.mjpeg', '.mjpg', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.mts', '.mxf', '.ogv',
    '.ts', '.vob', '.webm', '.wmv', '.y4m',
}
# libav also opens single pictures, which have their own reader, and any text.
NO_VIDEOS = {'apng', 'gif', 'image2', 'tty'}
PICTURE = '_pipe'  # suffix of libav's names of picture formats
RATE = Fraction(30)  # frames per second of files with unknown rate
TRIES = 100  # at a place that cannot be read
TELLING = 'matroska,webm', 'flv', 'asf'  # formats that store their duration, not the frame count
SHORT = 0.5  # s by which the streams of a complete file may be shorter than its duration
HIDDEN = 0x10  # bit of the first byte of a VP8 packet; unset if the frame is not shown
ATTACHED = 1024  # libav's flag of a cover picture, AV_DISPOSITION_ATTACHED_PIC

# Flags of libswscale. FAST takes the chroma of the nearest sample and equals OpenCV, bit for bit.
# ACCURATE is 5 dB better for 4:2:0 and back, and takes twenty times as long.
FAST = 0x4  # SWS_BICUBIC
ACCURATE = FAST | 0x2000 | 0x4000 | 0x40000  # SWS_FULL_CHR_H_INT, _INP, SWS_ACCURATE_RND


class MovieError(ValueError):
    """A video cannot be read or written; the message is one line, without the file name."""


@dataclass(frozen=True)
class Shot:
    """One frame, ``ticks`` of ``Movie.tick`` s after the start of the file."""

    pixels: np.ndarray  # uint8 H x W x 3, RGB, upright
    ticks: int
    time: float  # s, after the first frame
    decoded: av.VideoFrame  # as in the file, with its colour space and so on


class Movie:
    """
    The first video stream of a file; use it in a ``with`` statement.

    Counts of the frames that were read: ``lost`` could not be decoded, ``damaged`` were decoded in
    part, ``resized`` had another size than the first, ``retimed`` were not later than the previous.
    """

    def __init__(self, path: Path | str, accurate: bool = False) -> None:
        """Open a file or URL, see ``ACCURATE``. Raises ``MovieError``."""
        try:
            self.container = _open(path)
        except av.FFmpegError as error:
            missing = isinstance(error, FileNotFoundError)
            reason = 'no such file' if missing else 'not a readable video'
            raise MovieError(reason) from error
        kind = self.container.format.name
        streams = [
            s for s in self.container.streams.video
            if s.codec_context is not None and s.width and not int(s.disposition) & ATTACHED
        ]
        if not streams or kind in NO_VIDEOS or kind.endswith(PICTURE):
            self.container.close()
            raise MovieError('not a readable video')
        self.stream = streams[0]
        self.tick = fraction(self.stream.time_base) or 1 / RATE
        self.rate = fraction(self.stream.average_rate or self.stream.guessed_rate) or RATE
        self.aspect = fraction(self.stream.sample_aspect_ratio)  # of a pixel; 0: unknown
        self.begin = Fraction(self.container.start_time or 0, av.time_base)  # s
        self.conversion = ACCURATE if accurate else FAST
        self.lost = self.damaged = self.resized = self.retimed = 0
        self.missing = 0.0  # s at the end, if the file stores its duration
        self._decoded = self._seen = self._unseen = 0  # frames; packets with one, without one
        self._first: int | None = None  # dts of the first packet
        self._wait: int | None = None  # ticks from there to the first frame

    def __enter__(self) -> 'Movie':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.container.close()

    @property
    def length(self) -> int:
        """Number of frames, as the file stores it, or by its duration; 0: unknown."""
        if self.stream.frames:
            return self.stream.frames
        if self.stream.duration:
            return round(self.stream.duration * self.tick * self.rate)
        return round(Fraction(self.container.duration or 0, av.time_base) * self.rate)

    def frames(self, beside: Callable[[Any], None] | None = None) -> Iterator[av.VideoFrame]:
        """
        Yield the frames as they are decoded, in order, and continue after bad ones.

        ``beside`` gets the packets of the other streams.
        """
        end = self.begin
        for packet in self._packets():
            if packet.pts is not None:
                after = packet.pts + (packet.duration or 0)
                end = max(end, after * fraction(packet.time_base))
            if packet.stream is not self.stream:
                if beside is not None:
                    beside(packet)
                continue
            if self._first is None:
                self._first = packet.dts
            self.damaged += packet.is_corrupt
            if packet.size:
                hidden = self.stream.codec.name == 'vp8' and not bytes(packet)[0] & HIDDEN
                self._count(not hidden and not packet.is_discard)
                yield from self._decode(packet)
            else:
                self._count(False)  # in AVI: the frame before stays
        yield from self._decode(None)
        promised = self.stream.frames - self._unseen
        self.lost = max(0, max(promised, self._seen) - self._decoded)
        if self.container.format.name in TELLING and self.container.duration:
            claimed = Fraction(self.container.duration, av.time_base)
            self.missing = max(0.0, float(claimed - (end - self.begin)))

    def shots(self, beside: Callable[[Any], None] | None = None) -> Iterator[Shot]:
        """Yield the frames that have the size of the first one, with increasing times."""
        first: Shot | None = None
        ticks: int | None = None
        for frame in self.frames(beside):
            pixels = self.rgb(frame)
            if first is not None and pixels.shape != first.pixels.shape:
                self.resized += 1
                continue
            ticks = self._ticks(frame, ticks)
            begin = ticks if first is None else first.ticks
            shot = Shot(pixels, ticks, float((ticks - begin) * self.tick), frame)
            first = first or shot
            yield shot

    def span(self, first: int, count: int) -> list[np.ndarray]:
        """
        Return ``count`` frames from number ``first``, by the frame rate, in the form of ``rgb``.

        There are fewer at the end of the file.
        """
        step = 1 / self.rate / self.tick
        target = (self.stream.start_time or 0) + round(first * step)
        self.container.seek(target, stream=self.stream)  # to the key frame before it
        found: list[np.ndarray] = []
        for frame in self.frames():
            stamp = self._stamp(frame)
            if stamp is None or stamp >= target - step / 2:
                found.append(self.rgb(frame))
            if len(found) == count:
                break
        return found

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Return uint8 H x W x 3, RGB, upright."""
        pixels = frame.reformat(format='rgb24', interpolation=self.conversion, threads=1)
        return np.ascontiguousarray(np.rot90(pixels.to_ndarray(), round(frame.rotation / 90) % 4))

    def troubles(self) -> list[str]:
        """Return lines about the problems of the frames that were read."""
        count = self._decoded + self.lost
        told = {
            'cannot be decoded': self.lost, 'are damaged': self.damaged,
            'are of another size than the first': self.resized,
        }
        lines = [f'{bad} of {count} frames {what}' for what, bad in told.items() if bad]
        if self.missing > SHORT:
            lines.append(f'{self.missing:.1f} s are missing at the end')
        return lines

    def _packets(self) -> Iterator[Any]:
        failed = 0
        while failed < TRIES:
            try:
                for packet in self.container.demux():
                    failed = 0
                    if packet.size or packet.dts is not None:  # else it says that the end is there
                        yield packet
                return
            except av.FFmpegError:  # raised by demux: the place cannot be read
                failed += 1

    def _decode(self, packet: Any) -> Iterator[av.VideoFrame]:
        try:
            frames = self.stream.codec_context.decode(packet)
        except av.FFmpegError:  # counted in the end
            return
        self._decoded += len(frames)
        self.damaged += sum(frame.is_corrupt for frame in frames)
        yield from frames

    def _count(self, seen: bool) -> None:
        self._seen += seen
        self._unseen += not seen

    def _ticks(self, frame: av.VideoFrame, before: int | None) -> int:
        """Return the time of ``frame``: later than the one ``before``, whatever the file says."""
        stamp = self._stamp(frame)
        if stamp is None:
            return 0 if before is None else before + max(1, round(1 / self.rate / self.tick))
        ticks = stamp - round(self.begin / self.tick)
        if before is None or ticks > before:
            return ticks
        self.retimed += 1
        return before + 1

    def _stamp(self, frame: av.VideoFrame) -> int | None:
        """
        Return the time of ``frame`` in its file; None if the file has none.

        AVI only has decoding times, and libav guesses the rest. So frames follow one another in
        the order of decoding, minus the delay of the first.
        """
        if self.container.format.name != 'avi':
            return frame.dts if frame.pts is None else frame.pts
        if frame.dts is None or self._first is None:
            return None
        if self._wait is None:
            self._wait = frame.dts - self._first
        return frame.dts - self._wait


def fraction(number: Any) -> Fraction:
    """Return a ratio of libav, which has another type from av 19 on; 0 for none."""
    return Fraction(number.numerator, number.denominator) if number else Fraction(0)


def _open(path: Path | str) -> Any:
    try:
        return av.open(str(path))
    except UnicodeDecodeError:  # of titles and the like; before av 19, which takes them as they are
        return av.open(str(path), metadata_errors='replace')


def is_movie(path: Path) -> bool:
    """Return whether ``path`` is a video, whatever its name."""
    try:
        with Movie(path):
            return True
    except MovieError:
        return False
