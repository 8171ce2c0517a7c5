"""The task of a frame: a pure function of the time, the inputs and the previous decision."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from iov_restore_ros.tasks import TASKS

MODES = ('auto', *TASKS, 'passthrough')
CLEAR, RAIN = 'clear', 'rain'  # what the topic `rain` says
WEATHERS = tuple(dict.fromkeys(weather for task in TASKS.values() for weather in task.weathers))
STAY_FAST = 0.8  # of deblur_min_speed: a fast vehicle counts as fast until it is slower

Value = TypeVar('Value')


@dataclass(frozen=True)
class Settings:
    """The parameters of the same names; speeds in m/s, times in s."""

    mode: str = 'auto'
    weather: str = CLEAR
    vehicle_speed: float = 0.0
    deblur_min_speed: float = 5.0
    min_dwell: float = 2.0
    input_timeout: float = 2.0
    rain_threshold: float = 0.0  # not used here, but changing it takes effect at once


@dataclass(frozen=True)
class Reading(Generic[Value]):
    """The last value of a topic, and its time of arrival (s)."""

    value: Value
    time: float

    def counts(self, time: float, timeout: float) -> bool:
        """Return whether it is recent enough; always if ``timeout`` is 0."""
        return not timeout or time - self.time <= timeout


@dataclass(frozen=True)
class Inputs:
    """The last values of the topics: speed in m/s, negative in reverse, and whether it rains."""

    speed: Reading[float] | None = None
    rain: Reading[bool] | None = None


@dataclass(frozen=True)
class Decision:
    """A task (``None``: pass the frame unchanged), the reason, and the state for the next one."""

    task: str | None
    reason: str
    settings: Settings
    fast: bool = False
    since: float = 0.0  # time of the last change of the task, s


def decide(
    time: float, settings: Settings, inputs: Inputs, before: Decision | None = None
) -> Decision:
    """
    Choose the task for the next frame at ``time`` (s, of the clock of the readings).

    A change of the settings takes effect at once. Topics change the task ``min_dwell`` seconds
    after its last change at the earliest, even if the time jumps back. In rain and fog the frames
    of a fast vehicle are derained, because a drop hides what blur only smears. Both networks in
    turn would cost twice the time, on pictures that the second one was not trained on.
    """
    if settings.mode != 'auto':
        task = None if settings.mode == 'passthrough' else settings.mode
        return Decision(task, f'mode is {settings.mode}', settings)
    if before is not None and before.settings != settings:
        before = None
    fast, task, reason = _wanted(time, settings, inputs, before is not None and before.fast)
    if before is None:
        return Decision(task, reason, settings, fast, time)
    since = min(before.since, time)
    if task == before.task:
        return Decision(task, reason, settings, fast, since)
    if time - since >= settings.min_dwell:
        return Decision(task, reason, settings, fast, time)
    reason = f'{reason}; {before.task or "passing"} until min_dwell is over'
    return Decision(before.task, reason, settings, fast, since)


def _wanted(
    time: float, settings: Settings, inputs: Inputs, was_fast: bool
) -> tuple[bool, str | None, str]:
    """Return whether the vehicle is fast, the task for this moment, and the reason."""
    speed, speed_source = settings.vehicle_speed, 'parameter'
    if inputs.speed is not None and inputs.speed.counts(time, settings.input_timeout):
        speed, speed_source = inputs.speed.value, 'topic'
    weather, weather_source = settings.weather, 'parameter'
    if inputs.rain is not None and inputs.rain.counts(time, settings.input_timeout):
        weather, weather_source = RAIN if inputs.rain.value else CLEAR, 'topic'

    limit = settings.deblur_min_speed * (STAY_FAST if was_fast else 1.0)
    fast = abs(speed) >= limit
    speed_text = f'{abs(speed):.1f} m/s ({speed_source})'
    task = next(task for task in TASKS.values() if weather in task.weathers)
    if not task.when_fast:
        return fast, task.name, f'auto: {weather} ({weather_source})'
    if fast:
        return fast, task.name, f'auto: {speed_text}, motion blur from {limit:.1f}'
    return fast, None, f'auto: {weather} ({weather_source}) and {speed_text}, nothing to restore'
