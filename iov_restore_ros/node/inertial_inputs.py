"""
Gyroscope and exposure time of the cameras' frames, from the topics `imu` and `<camera>/exposure`.

The scheduler's thread calls ``prepare``, ``look_back`` and ``leave_out`` for the frames that it
deblurs. The executor's thread calls everything else.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from iov_restore_ros.inference import Before
from iov_restore_ros.node.camera import Camera
from iov_restore_ros.node.images import is_set, seconds
from iov_restore_ros.node.imu import ImuTopic, Lack
from iov_restore_ros.node.live_inputs import InputError, LiveInput, as_exposure
from iov_restore_ros.node.mounting import MountingError, StaticTransforms, rotations
from iov_restore_ros.video.calibration import camera_of
from iov_restore_ros.video.inertial import Inertial

LONG = 3.0  # s without gyroscope from which on it warns
NO_STAMPS = Lack('no stamps', 'the frames have no stamps')
INERTIAL_PARAMETERS = 'imu', 'imu_rotation', 'imu_time_offset', 'readout', 'imu_wait'


class Settings(NamedTuple):
    """The values of ``INERTIAL_PARAMETERS``; rotations are 3 x 3, empty if tf2 gives them."""

    imu: bool
    rotations: list[np.ndarray]
    offset: float
    readout: float
    wait: float


@dataclass
class Watched:
    """One camera's gyroscope, and its recent use; times in s, monotonic."""

    inertial: Inertial | None = None
    begun: tuple[bytes, float] = b'', 0.0  # rotation and offset (s) that it started with
    lack: Lack | None = None  # of the last deblurred frame; None if it had the gyroscope
    asked: float = -inf  # time of that frame
    well: float = -inf  # last time that a frame had the gyroscope, or start of deblurring
    told: str = ''  # last state in the log
    settled: bool = False  # whether the log has the settled offset


def rotation_problem(name: str, value: Any, cameras: int) -> str | None:
    """Return why the value of imu_rotation does not match the number of ``cameras``, or None."""
    if name != 'imu_rotation' or (count := len(value or ()) // 4) in (0, 1, cameras):
        return None
    return f'imu_rotation has {count} quaternions for {cameras} cameras: give one, or one for each'


class InertialInputs:
    """Gives each camera's frames the data of the topics `imu` and `<camera>/exposure`."""

    def __init__(self, node: LifecycleNode, cameras: Sequence[str]) -> None:
        """Read the parameters of ``node``. Raises ``InputError`` if they are wrong."""
        self._node = node
        self._imu = ImuTopic(node)
        self._transforms: StaticTransforms | None = None
        self._cameras = {name: Watched() for name in cameras}
        self._listening = False
        problem = rotation_problem(
            'imu_rotation', node.get_parameter('imu_rotation').value, len(cameras)
        )
        if problem:
            raise InputError(problem)
        self._exposures: dict[str, LiveInput[float]] = {}
        if node.get_parameter('exposure_type').value:
            self._exposures = {
                name: LiveInput(
                    node, f'{name}/exposure', (float, int), as_exposure, parameters='exposure'
                ) for name in cameras
            }
        self.apply_parameters()

    def apply_parameters(self) -> None:
        """Apply the current values of the parameters."""
        imu, quaternions, *numbers = (
            self._node.get_parameter(name).value for name in INERTIAL_PARAMETERS
        )
        self._settings = Settings(imu, rotations(quaternions or ()), *map(float, numbers))
        self._listen()

    def subscribe(self) -> None:
        """Subscribe to the topics, to `imu` only if the parameter is on."""
        self._listening = True
        for exposure in self._exposures.values():
            exposure.subscribe()
        self._listen()

    def unsubscribe(self) -> None:
        """Unsubscribe, and clear what was received."""
        self._listening = False
        for exposure in self._exposures.values():
            exposure.unsubscribe()
        self._listen()

    def follow(self) -> None:
        """Adapt the subscriptions to the publishers' QoS; call it about once a second."""
        for exposure in self._exposures.values():
            exposure.follow()
        self._imu.follow()
        if self._listening:
            self._tell()

    # For the frames

    def prepare(self, camera: Camera, header: Header, size: tuple[int, int], came: float) -> None:
        """
        Give the camera's history the exposure and the gyroscope of a frame to deblur.

        ``header`` is the frame's, ``size`` its height and width, and ``came`` its time of arrival
        (s, monotonic). It waits for the frame's samples until `imu_wait` after that.
        """
        history = camera.history
        history.exposure = self._exposure(camera.name) or 0.0
        history.inertial = None
        settings = self._settings
        if not settings.imu:
            return
        if not is_set(header.stamp):
            self.leave_out(camera, NO_STAMPS)
            return
        with self._imu.lock:
            lack = self._connect(camera, header, size, settings) or self._imu.wait(
                history.asks_until(seconds(header.stamp)), came + settings.wait
            )
        if lack is not None:
            history.inertial = None
            self.leave_out(camera, lack)

    def look_back(
        self, camera: Camera, pixels: np.ndarray, stamp: float, task: str
    ) -> Before | None:
        """Return the result of ``History.look_back`` for a prepared frame."""
        with self._imu.lock:
            before = camera.history.look_back(pixels, stamp, task)
        inertial = camera.history.inertial
        if inertial is None:
            return before
        if before is not None and before.blurring is not None and before.blurring.told[1]:
            watched = self._cameras[camera.name]
            watched.lack, watched.asked = None, time.monotonic()
            watched.well = watched.asked
            camera.statistics.turn('')
        elif why := camera.history.reason:
            self.leave_out(
                camera, Lack(why, f'there is no previous frame to compare it with ({why})')
            )
        elif not inertial.trusted:
            self.leave_out(camera, Lack('not trusted', f'it is not trusted: {inertial.reason}'))
        else:
            self.leave_out(camera, Lack('no samples', 'samples are missing during the exposure'))
        return before

    def leave_out(self, camera: Camera, lack: Lack) -> None:
        """Count a frame that is deblurred without the gyroscope, if `imu` is on."""
        if not self._settings.imu:
            return
        watched = self._cameras[camera.name]
        now = time.monotonic()
        if now - watched.asked > LONG:
            watched.well = now
        watched.lack, watched.asked = lack, now
        camera.statistics.turn(lack.kind)

    # For people

    def describe(self, period: float) -> dict[str, object]:
        """Return the diagnostics of the topic `imu`; call it every ``period`` s."""
        return self._imu.describe(period) if self._settings.imu else {'imu': 'off'}

    def describe_camera(self, name: str) -> dict[str, object]:
        """Return the diagnostics of a camera's gyroscope and exposure."""
        values: dict[str, object] = {'gyroscope': self._state(name)}
        inertial = self._cameras[name].inertial
        if self._settings.imu and inertial is not None:
            values['gyroscope offset ms'] = f'{1000 * inertial.offset:.1f}'
            values['gyroscope bias rad/s'] = ' '.join(f'{rate:.4f}' for rate in inertial.bias)
            values['gyroscope agreement %'] = f'{100 * inertial.agreement:.0f}'
            values['gyroscope offset settled'] = inertial.settled
        if name in self._exposures:
            exposure = self._exposure(name)
            values['exposure ms'] = 'unknown' if exposure is None else f'{1000 * exposure:.2f}'
            values['exposure ignored'] = self._exposures[name].ignored
        return values

    def concern(self, name: str) -> str:
        """Return why a camera lacks its gyroscope or exposure; empty if all is well."""
        watched = self._cameras[name]
        now = time.monotonic()
        recent = now - watched.asked < LONG
        if self._settings.imu and watched.lack and recent and now - watched.well > LONG:
            return f'no gyroscope: {watched.lack.text}'
        if name in self._exposures and self._exposure(name) is None:
            return f'no message on topic {name}/exposure: the parameter shutter applies'
        return ''

    def _state(self, name: str) -> str:
        """Return whether a camera's gyroscope is used, as text."""
        watched = self._cameras[name]
        if not self._settings.imu:
            return 'off'
        if time.monotonic() - watched.asked > LONG:
            return 'idle: no frames are deblurred'
        return f'not used: {watched.lack.text}' if watched.lack else 'used'

    def _tell(self) -> None:
        """Log each change once."""
        log = self._node.get_logger()
        for name, watched in self._cameras.items():
            concern = self.concern(name)
            state = concern or self._state(name)
            inertial = watched.inertial
            if inertial is not None and inertial.settled and not watched.settled:
                watched.settled = True
                log.info(
                    f"{name}: the gyroscope's stamps are {1000 * inertial.offset:.1f} ms ahead of "
                    f"the camera's (imu_time_offset: {inertial.offset:.4f})"
                )
            kind = re.sub(r'[\d.]+', '', state)
            if kind == watched.told or not (concern or state == 'used'):
                continue
            watched.told = kind
            if concern:
                log.warning(f'{name}: {concern}')
            else:
                log.info(f'{name}: the gyroscope is used')

    # Connecting topics, calibration and mounting

    def _listen(self) -> None:
        """Subscribe to `imu` and to tf2, or unsubscribe, as needed."""
        if not (self._listening and self._settings.imu):
            self._imu.unsubscribe()
            if self._transforms is not None:
                self._transforms.destroy()
                self._transforms = None
            return
        self._imu.subscribe()
        if self._transforms is None and not self._settings.rotations:
            self._transforms = StaticTransforms(self._node)

    def _exposure(self, name: str) -> float | None:
        """Return a camera's exposure (s) from its topic, if there is a recent one."""
        if name not in self._exposures:
            return None
        now = self._node.get_clock().now().nanoseconds / 1e9
        timeout = self._node.get_parameter('input_timeout').value
        exposure = self._exposures[name]
        reading = exposure.reading(now)
        if reading is None or 0 < timeout < exposure.silence(now):
            return None
        return reading.value

    def _connect(
        self, camera: Camera, header: Header, size: tuple[int, int], settings: Settings
    ) -> Lack | None:
        """Give the camera's history its gyroscope, or return why there is none."""
        self._imu.take()
        if not len(self._imu.gyroscope):
            return Lack('no samples', self._imu.trouble() or 'waiting for its first sample')
        info = camera.infos.newest()
        if info is None:
            return Lack('no calibration', f'no camera_info received on {camera.name}/camera_info')
        try:
            rotation = self._rotation(
                camera.name, header.frame_id or info.header.frame_id, settings
            )
            roi = info.roi
            seen = camera_of(
                info.width, info.height, info.k, info.d, info.distortion_model, rotation,
                settings.readout, size, (roi.x_offset, roi.y_offset, roi.width, roi.height),
            )
        except MountingError as error:
            return Lack('no rotation', str(error))
        except ValueError as error:
            return Lack('no calibration', str(error))
        watched = self._cameras[camera.name]
        inertial, begun = watched.inertial, (rotation.tobytes(), settings.offset)
        if inertial is None or begun != watched.begun:
            inertial = Inertial(self._imu.gyroscope, seen, settings.offset)
            watched.inertial, watched.begun = inertial, begun
        inertial.camera = seen
        camera.history.inertial = inertial
        return None

    def _rotation(self, name: str, frame: str, settings: Settings) -> np.ndarray:
        """Return the rotation (3 x 3) from the IMU's frame to a camera's; ``MountingError``."""
        if settings.rotations:
            number = list(self._cameras).index(name)
            return settings.rotations[number if len(settings.rotations) > 1 else 0]
        transforms = self._transforms
        if transforms is None:  # the parameter changed a moment ago
            raise MountingError('imu_rotation is not set')
        return transforms.rotation(self._imu.frame, frame)
