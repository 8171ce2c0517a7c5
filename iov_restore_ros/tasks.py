"""
The tasks that frames are restored for: all that the package knows of one stands in its record.

Plain values alone, as everybody asks them: pictures, networks, video, training, node and launch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """
    What a task is; who needs to know asks the record, never the name.

    A task either asks how frames moved while they were exposed (``blur``), or not; only those that
    do not may be cleared before (``clears``).
    """

    name: str
    weathers: tuple[str, ...]  # in which mode `auto` chooses it; of several tasks the first
    when_fast: bool  # and only if the vehicle is fast
    blur: bool  # the motion while the shutter was open, and a gyroscope, are of use
    streaks: bool  # bright streaks are taken off a frame before a flow is looked for in it
    clears: bool  # a veil, and what lies on the glass, are taken off before
    degradation: str  # how training pictures are made: a name of `degradations.DEGRADATIONS`
    margin: int  # pixels on every side that this takes off a picture
    fastest: tuple[float, ...]  # pixels a frame in training: the fastest motion is one of these


DEBLUR = Task(
    'deblur', weathers=('clear',), when_fast=True, blur=True, streaks=False, clears=False,
    degradation='motion_blur', margin=24, fastest=(30.0, 30.0, 30.0, 30.0, 60.0),
)
DERAIN = Task(  # fog: as rain, a veil without streaks
    'derain', weathers=('rain', 'fog'), when_fast=False, blur=False, streaks=True, clears=True,
    degradation='rain', margin=0, fastest=(24.0,),
)
TASKS = {task.name: task for task in (DEBLUR, DERAIN)}
