"""Which task a frame gets: a pure function of the time, the inputs and the decision before."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from iov_restore_ros.tasks import TASKS

MODES = ('auto', *TASKS, 'passthrough')
CLEAR, RAIN = 'clear', 'rain'  # what the topic `rain` says
WEATHERS = tuple(dict.fromkeys(weather for task in TASKS.values() for weather in task.weathers))
STAY_FAST = 0.8  # of deblur_min_speed: a fast vehicle counts as fast until it is slower than that

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
    rain_threshold: float = 0.0  # decides about nothing here, but a change of it is a person's


@dataclass(frozen=True)
class Reading(Generic[Value]):
    """What a topic said last, and when that came (s)."""

    value: Value
    time: float

    def counts(self, time: float, timeout: float) -> bool:
        """Return whether it is still to be believed; without a ``timeout`` (0) it always is."""
        return not timeout or time - self.time <= timeout


@dataclass(frozen=True)
class Inputs:
    """What the topics said last: speed in m/s, negative when reversing, and whether it rains."""

    speed: Reading[float] | None = None
    rain: Reading[bool] | None = None


@dataclass(frozen=True)
class Decision:
    """A task (``None``: leave the frame as it is), the reason, and what the next one builds on."""

    task: str | None
    reason: str
    settings: Settings
    fast: bool = False
    since: float = 0.0  # s, when the task was chosen


def decide(
    time: float, settings: Settings, inputs: Inputs, before: Decision | None = None
) -> Decision:
    """
    Choose the task for the next frame at ``time`` (s, of the clock that the readings have).

    A change of the settings is a person's and takes effect at once. What the topics say changes
    the task ``min_dwell`` seconds after the change before at the earliest, also when the time
    jumps back. In rain and fog a fast vehicle gets its frames derained: what a drop hides cannot be
    seen at all, blur can, and one network after the other costs twice the time, on pictures that
    the second was not trained on.
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
    """Return (whether the vehicle is fast, the task for that moment, the reason)."""
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
