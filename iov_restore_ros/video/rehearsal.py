"""
Learn from the first frames of a recording what a live camera shows only while it drives.

That is whether its gyroscope agrees with the frames, the gyroscope's clock offset and bias, the
frame time, and the exposure. A live camera needs ten frames and more for these. A recorded one is
looked at first, so all of them are known from its first frame on.
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

import numpy as np

from iov_restore_ros.video.history import History

FRAMES = 60  # enough for a clock offset and a bias


def rehearse(
    history: History, frames: Iterable[tuple[float, np.ndarray]], task: str,
    check: Callable[[], None] = lambda: None,
) -> None:
    """
    Let an empty ``history`` learn from the first of ``frames``, and rewind it.

    ``frames`` are the stamps (s) and pixels (uint8 H x W x 3, RGB) as they were received, all for
    one ``task``. Whoever yields a frame has prepared ``history.inertial`` for it. Without a
    gyroscope there is nothing to learn. ``check`` is called before every frame, and may raise.
    """
    for stamp, frame in islice(frames, FRAMES):
        check()
        if history.inertial is None:
            break
        history.look_back(frame, stamp, task)
        history.miss(stamp, partial(np.asarray, frame))
    history.rewind()
