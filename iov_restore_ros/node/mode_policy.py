"""Which task a frame gets: a pure function of the node's parameters."""

from dataclasses import dataclass

MODES = ('auto', 'deblur', 'derain', 'passthrough')
WEATHERS = ('clear', 'rain')


@dataclass(frozen=True)
class Decision:
    """A task (``None``: leave the frame as it is) and the reason, for people to read."""

    task: str | None
    reason: str


def decide(mode: str, weather: str, speed: float, min_speed: float) -> Decision:
    """
    Choose the task for the next frame.

    ``mode`` is one of ``MODES``, ``weather`` one of ``WEATHERS``, ``speed`` (m/s, negative when
    reversing) counts as fast enough for motion blur from ``min_speed`` (m/s) up. In rain a fast
    vehicle gets its frames derained: what a drop hides cannot be seen at all, blur can.
    """
    if mode == 'passthrough':
        return Decision(None, 'mode is passthrough')
    if mode != 'auto':
        return Decision(mode, f'mode is {mode}')
    if weather == 'rain':
        return Decision('derain', 'auto: weather is rain')
    if abs(speed) >= min_speed:
        return Decision('deblur', f'auto: {abs(speed):.1f} m/s, motion blur from {min_speed:.1f}')
    return Decision(None, f'auto: clear weather and {abs(speed):.1f} m/s, nothing to restore')
