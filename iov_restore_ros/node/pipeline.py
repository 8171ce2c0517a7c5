"""
How frames go through the node: received, restored, published, and counted once.

The executor's thread receives. It checks a message and puts it into its camera's slot. If a frame
only passes, this thread also publishes it, because waking the other thread would cost more. The
scheduler's thread restores and publishes. It publishes comparisons last.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import compress
from math import inf, nan
from operator import not_
from typing import NamedTuple

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.inference import Before, Restorer, Restoring
from iov_restore_ros.node.camera import Camera
from iov_restore_ros.node.compressed import check_compressed, open_image
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    check,
    from_rgb,
    is_set,
    moment,
)
from iov_restore_ros.node.imu import Lack
from iov_restore_ros.node.inertial_inputs import InertialInputs
from iov_restore_ros.node.mode_chooser import ModeChooser
from iov_restore_ros.node.scheduler import FrameScheduler
from iov_restore_ros.node.statistics import Outcome, Timing
from iov_restore_ros.tasks import TASKS

LOG_PERIOD = 10.0  # s between two log lines about the same problem
MOST_REASONS = 100  # remembered at most, because they contain text from messages
NO_PAST = Lack('no past', 'use_past is false, or the model does not use the previous frame')
OFF, FAILED = 'off', 'failed'  # text of a comparison instead of a task


@dataclass
class Frame:
    """A frame in the node: its camera, the message, and its time of arrival (s, monotonic)."""

    camera: Camera
    message: Image | CompressedImage
    received: float
    ended: bool = False  # whether its outcome is counted

    def stamp(self) -> float:
        """Return its stamp in seconds; its time of arrival if it has no stamp."""
        return moment(self.message.header.stamp, self.received)

    def end(self, outcome: Outcome, timing: Timing | None = None) -> None:
        """Count its outcome; only the first call counts."""
        if not self.ended:
            self.ended = True
            self.camera.statistics.end(outcome, timing)

    def open(self) -> tuple[Image, np.ndarray]:
        """Return its image message, and the pixels: uint8 H x W x 3, RGB."""
        return open_image(self.message)

    def pixels(self) -> np.ndarray | None:
        """Return its pixels as ``open`` does; None if it cannot be opened."""
        try:
            return self.open()[1]
        except Exception:  # noqa: BLE001  it is only the previous frame: nothing is lost
            return None


@dataclass(frozen=True)
class Picture:
    """An opened frame: its image message, and its pixels as uint8 H x W x 3, RGB."""

    frame: Frame
    image: Image
    pixels: np.ndarray
    before: Before | None = None
    aligning: float = nan  # s


class Shown(NamedTuple):
    """A frame as it was received and as it was published, for a comparison."""

    camera: Camera
    came: Image | CompressedImage
    went_out: Image | CompressedImage
    task: str = OFF


@dataclass
class Batch:
    """Frames that are processed together: some are restored, some pass unchanged."""

    frames: list[Frame]
    passing: list[tuple[Frame, Outcome]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    restoring: Restoring | None = None
    restored: list[np.ndarray] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    error: str | None = None  # why the frames are not restored
    task: str = 'choosing the task'
    started: float = nan  # start of the restoring, s, monotonic
    took: float = nan  # duration of the restoring, s

    def attempt(self, step: 'Callable[[Batch], None]') -> None:
        """Run ``step``, unless an earlier one failed; store the reason in ``error``."""
        if self.error is not None:
            return
        try:
            step(self)
        except Exception as error:  # noqa: BLE001  of any kind: the stack must not go blind
            # Publishing the frames as they came needs memory, and the exception would hold all
            # that the step had allocated.
            self.error = str(error) or type(error).__name__
            self.pictures, self.restoring, self.restored = [], None, []


class FramePipeline:
    """Receives the cameras' frames, restores them and publishes them while it is active."""

    def __init__(
        self, node: LifecycleNode, chooser: ModeChooser, restorer: Restorer,
        cameras: Sequence[Camera], inertial: InertialInputs,
    ) -> None:
        self._node = node
        self._chooser = chooser
        self._restorer = restorer
        self._restorer_in_use = threading.Lock()
        self._cameras = cameras
        self._inertial = inertial
        self._scheduler: FrameScheduler[Frame, Batch] | None = None
        self._told: dict[str, float] = {}  # last time (s) that each reason was logged
        self._restored_by: Restorer | None = None  # it restored the frames in the histories
        self._left_behind = False  # whether an abandoned batch still uses the restorer
        self._closed = False

    @property
    def restorer(self) -> Restorer:
        """The generators in use."""
        return self._restorer

    @property
    def active(self) -> bool:
        """Whether frames are received."""
        return self._scheduler is not None

    def swap(self, restorer: Restorer) -> None:
        """Use ``restorer`` from the next batch on, and close the previous one."""
        if self._closed:  # loading took too long
            restorer.close()
            return
        with self._restorer_in_use:
            before, self._restorer = self._restorer, restorer
        before.close()

    def close(self) -> None:
        """Free the memory of the generators; an abandoned batch frees it when it ends."""
        self._closed = True
        if not self._left_behind:
            self._restorer.close()

    def activate(self) -> None:
        """Start to receive and to restore."""
        self._scheduler = FrameScheduler(
            [camera.name for camera in self._cameras], self._start, self._wait, self._finish,
            self._restorer.batch, self._restorer.in_flight,
            self._node.get_parameter('batch_wait').value, in_order=True,
        )
        for camera in self._cameras:
            camera.subscribe(self._receive)

    def stop(self, timeout: float) -> None:
        """
        Stop receiving, finish the current batches, log each camera's account.

        Raises ``TimeoutError`` if they take longer than ``timeout`` s. They are then abandoned, and
        their frames are not published.
        """
        for camera in self._cameras:
            camera.unsubscribe()
        if self._scheduler is None:
            return
        scheduler, self._scheduler = self._scheduler, None
        for frame in scheduler.stop(timeout):
            frame.end(Outcome.DROPPED_STOPPING)
        self._left_behind = scheduler.left_behind
        for camera in self._cameras:
            self._node.get_logger().info(f'{camera.name}: {camera.statistics.report()}')
        if self._left_behind:
            raise TimeoutError(f'a batch takes longer than {timeout} s: it is abandoned')
        for camera in self._cameras:
            camera.history.forget()

    def _receive(self, camera: Camera, message: Image | CompressedImage) -> None:
        """Put a frame into its slot, or publish it unchanged (executor's thread)."""
        received = time.monotonic()
        camera.receive(message)
        frame = Frame(camera, message, received)
        try:
            check(message) if isinstance(message, Image) else check_compressed(message)
        except (UnsupportedEncodingError, MalformedImageError) as error:
            self._skip(frame, error)
            return
        assert self._scheduler is not None
        # It must not overtake an older frame, and this thread must not do slow work.
        at_once = self._scheduler.idle(camera.name) and not camera.converts(message)
        if at_once and self._passes():
            self._publish(frame, message, Outcome.PASSED)
        elif older := self._scheduler.offer(camera.name, frame):
            camera.history.miss(older.stamp(), older.pixels)
            older.end(Outcome.DROPPED_FOR_NEWER)

    def _passes(self) -> bool:
        """Return whether frames currently pass unchanged."""
        try:
            return self._chooser.decide().task is None
        except Exception:  # noqa: BLE001  the other thread gets it too, and reports it
            return False

    def _skip(self, frame: Frame, error: Exception) -> None:
        """Count and log a frame that cannot be used."""
        unsupported = isinstance(error, UnsupportedEncodingError)
        frame.end(Outcome.DROPPED_ENCODING if unsupported else Outcome.DROPPED_MALFORMED)
        self._tell(f'{frame.camera.name}: frame skipped, {error}')

    def _tell(self, line: str) -> None:
        """Log an error that occurs with each frame, once per ``LOG_PERIOD``."""
        # rclpy throttles by line of code, so that one reason would hide another.
        reason = re.sub(r'\d+', '', line)
        now = time.monotonic()
        if now - self._told.get(reason, -inf) < LOG_PERIOD:
            return
        if len(self._told) > MOST_REASONS:
            self._told.clear()
        self._told[reason] = now
        self._node.get_logger().error(line)

    def _start(self, frames: list[Frame]) -> Batch:
        """Open frames and start to restore them (scheduler's thread)."""
        batch = Batch(frames)
        batch.attempt(self._begin)
        return batch

    def _begin(self, batch: Batch) -> None:
        decision = self._chooser.decide()
        task = decision.task
        if task is None:
            batch.passing = [(frame, Outcome.PASSED) for frame in batch.frames]
            return
        batch.task = task
        batch.pictures = [picture for frame in batch.frames if (picture := self._open(frame))]
        if decision.settings.mode == 'auto' and TASKS[task].blur:
            self._set_sharp_aside(batch)
        with self._restorer_in_use:
            if self._restorer.uses_past and self._node.get_parameter('use_past').value:
                batch.pictures = self._look_back(batch.pictures, task)
            elif TASKS[task].blur:
                for picture in batch.pictures:
                    self._inertial.leave_out(picture.frame.camera, NO_PAST)
            batch.started = time.monotonic()
            batch.restoring = self._restorer.start(
                [p.pixels for p in batch.pictures], task, [p.before for p in batch.pictures]
            )

    def _wait(self, batch: Batch) -> None:
        """Wait until frames are restored (scheduler's thread)."""
        batch.attempt(self._receive_restored)

    def _receive_restored(self, batch: Batch) -> None:
        if batch.restoring is None:
            return
        batch.restored = batch.restoring.result()
        batch.took = time.monotonic() - batch.started
        for picture, pixels in zip(batch.pictures, batch.restored, strict=True):
            history = picture.frame.camera.history
            history.keep(pixels, picture.frame.stamp(), picture.pixels)

    def _finish(self, batch: Batch) -> None:
        """Publish a batch, and then its comparisons (scheduler's thread)."""
        for frame, outcome in batch.passing:
            self._publish(frame, frame.message, outcome)
            batch.shown.append(Shown(frame.camera, frame.message, frame.message))
        batch.attempt(self._publish_restored)
        if batch.error is not None:
            with suppress(Exception):  # for example while the node is being destroyed
                self._fail(batch, batch.error)
        for frame in batch.frames:
            frame.end(Outcome.DROPPED_AFTER_ERROR)  # no effect if its outcome is counted
        for comparison in batch.shown:
            self._compare(comparison)

    def _publish_restored(self, batch: Batch) -> None:
        messages = [
            from_rgb(pixels, picture.image)
            for pixels, picture in zip(batch.restored, batch.pictures, strict=True)
        ]
        for picture, message in zip(batch.pictures, messages, strict=True):
            frame = picture.frame
            self._publish(frame, message, Outcome.RESTORED, batch.took, picture.aligning)
            batch.shown.append(Shown(frame.camera, picture.image, message, batch.task))

    def _look_back(self, pictures: list[Picture], task: str) -> list[Picture]:
        """Return ``pictures`` with the previous frame of each, where there is one."""
        if self._restored_by is not self._restorer:
            self._restored_by = self._restorer
            for camera in self._cameras:
                camera.history.forget()
        looked = []
        for picture in pictures:
            camera = picture.frame.camera
            camera.history.longest_gap = self._node.get_parameter('max_gap').value
            camera.history.shutter = self._node.get_parameter('shutter').value
            stamp = picture.frame.stamp()
            if TASKS[task].blur:
                header, size = picture.frame.message.header, picture.pixels.shape[:2]
                self._inertial.prepare(camera, header, size, picture.frame.received)
            started = time.monotonic()
            if TASKS[task].blur:
                before = self._inertial.look_back(camera, picture.pixels, stamp, task)
            else:
                before = camera.history.look_back(
                    picture.pixels, stamp, task, self._restorer.clearer
                )
            took = time.monotonic() - started if before else nan
            camera.statistics.look_back(camera.history.reason)
            looked.append(replace(picture, before=before, aligning=took))
        return looked

    def _set_sharp_aside(self, batch: Batch) -> None:
        """Pass the frames that need no deblurring, if `skip_sharp` is set."""
        if not self._node.get_parameter('skip_sharp').value:
            return
        sharp = [picture.frame.camera.gauge.is_sharp(picture.pixels) for picture in batch.pictures]
        batch.passing = [
            (picture.frame, Outcome.PASSED_SHARP) for picture in compress(batch.pictures, sharp)
        ]
        for frame, _ in batch.passing:
            frame.camera.history.miss(frame.stamp(), frame.pixels)
        batch.pictures = list(compress(batch.pictures, map(not_, sharp)))

    def _open(self, frame: Frame) -> Picture | None:
        """Return an opened frame; None if it cannot be opened, which is counted."""
        try:
            return Picture(frame, *frame.open())
        except Exception as error:  # noqa: BLE001  this thread must survive every error
            self._skip(frame, error)
            return None

    def _compare(self, shown: Shown) -> None:
        """Publish the comparison of a frame."""
        try:
            shown.camera.comparison.publish(shown.came, shown.went_out, shown.task)
        except Exception as error:  # noqa: BLE001  this thread must survive every error
            if self._node.context.ok():
                self._tell(f'{shown.camera.name}: cannot compare: {error}')

    def _fail(self, batch: Batch, error: str) -> None:
        """Pass or drop, as `on_error` says, the frames that could not be restored."""
        self._node.get_logger().error(
            f'{batch.task} failed: {error}', throttle_duration_sec=LOG_PERIOD
        )
        if self._node.get_parameter('on_error').value == 'drop':
            return
        for frame in batch.frames:
            if not frame.ended:
                self._publish(frame, frame.message, Outcome.PASSED_AFTER_ERROR)
                batch.shown.append(Shown(frame.camera, frame.message, frame.message, FAILED))

    def _publish(
        self, frame: Frame, message: Image | CompressedImage, outcome: Outcome,
        restoring: float = nan, aligning: float = nan,
    ) -> None:
        """Publish a frame as ``message``, and count it; in either thread."""
        camera = frame.camera
        try:
            camera.publish(message)
            latency = nan
            if is_set(stamp := message.header.stamp):  # no rclpy Time: it refuses negative ones
                now = self._node.get_clock().now().nanoseconds
                latency = (now - stamp.sec * 10**9 - stamp.nanosec) / 1e9
            in_node = time.monotonic() - frame.received
            frame.end(outcome, Timing(latency, in_node, restoring, aligning))
        except (UnsupportedEncodingError, MalformedImageError) as error:
            self._skip(frame, error)
        except Exception as error:  # noqa: BLE001  this thread must survive every error
            frame.end(Outcome.DROPPED_AFTER_ERROR)
            if self._node.context.ok():
                self._node.get_logger().error(
                    f'{camera.name}: cannot publish: {error}', throttle_duration_sec=LOG_PERIOD
                )
