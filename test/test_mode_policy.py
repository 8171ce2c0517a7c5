"""The choice of the task: examples, and what must hold for any course of inputs."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iov_restore_ros.node.mode_policy import MODES, WEATHERS, Inputs, Reading, Settings, decide
from iov_restore_ros.tasks import TASKS

times = st.floats(-100, 100)
speeds = st.floats(allow_nan=True, allow_infinity=True)
settings = st.builds(
    Settings, st.sampled_from(MODES), st.sampled_from(WEATHERS), st.floats(-50, 50),
    st.floats(0, 30), st.floats(0, 5), st.floats(0, 5),
)
inputs = st.builds(
    Inputs,
    st.none() | st.builds(Reading, speeds, times),
    st.none() | st.builds(Reading, st.booleans(), times),
)


def heard(time, speed=None, rain=None):
    """Return inputs that came at ``time``."""
    return Inputs(*(None if value is None else Reading(value, time) for value in (speed, rain)))


def tasks(settings, course):
    """Return the tasks chosen over a course of (time, inputs)."""
    decision, chosen = None, []
    for time, now in course:
        decision = decide(time, settings, now, decision)
        chosen.append(decision.task)
    return chosen


@pytest.mark.parametrize(('mode', 'weather', 'speed', 'task'), [
    ('passthrough', 'rain', 30.0, None),
    ('deblur', 'rain', 0.0, 'deblur'),
    ('derain', 'clear', 30.0, 'derain'),
    ('auto', 'rain', 0.0, 'derain'),
    ('auto', 'rain', 30.0, 'derain'),
    ('auto', 'fog', 30.0, 'derain'),
    ('auto', 'clear', 30.0, 'deblur'),
    ('auto', 'clear', -30.0, 'deblur'),
    ('auto', 'clear', 5.0, 'deblur'),
    ('auto', 'clear', 4.9, None),
])
def test_by_parameters(mode, weather, speed, task):
    decision = decide(0.0, Settings(mode, weather, speed), Inputs())
    assert decision.task == task
    assert mode in decision.reason


def test_topics_win_over_parameters_until_they_are_silent():
    course = [(t, heard(0.0, speed=20.0, rain=False)) for t in (0.0, 2.0, 2.1)]
    settings = Settings(weather='rain', min_dwell=0.0, input_timeout=2.0)
    assert tasks(settings, course) == ['deblur', 'deblur', 'derain']
    assert tasks(Settings(weather='rain', min_dwell=0.0, input_timeout=0.0), course)[-1] == 'deblur'


def test_speed_has_a_band():
    course = [(t, heard(t, speed)) for t, speed in enumerate((4.5, 5.0, -4.5, 4.0, 3.9, 4.5, 5.1))]
    assert tasks(Settings(min_dwell=0.0), course) == [
        None, 'deblur', 'deblur', 'deblur', None, None, 'deblur'
    ]


def test_what_a_person_sets_takes_effect_at_once():
    decision = decide(0.0, Settings(), heard(0.0, 0.0))
    decision = decide(0.1, Settings(), heard(0.1, 30.0), decision)
    assert decision.task is None and 'min_dwell' in decision.reason
    for changed in (Settings('derain'), Settings(weather='rain'), Settings('passthrough')):
        assert decide(0.1, changed, Inputs(), decision).task == decide(0.1, changed, Inputs()).task


@given(settings, st.lists(st.tuples(times, inputs), max_size=30))
def test_any_course_stays_in_the_set_and_keeps_the_dwell(settings, course):
    """With time that jumps as it likes: the seconds since a change are those that went forward."""
    before, lasted, last = None, 0.0, None
    for time, now in course:
        decision = decide(time, settings, now, before)
        assert decision.task in (*TASKS, None)
        if settings.mode != 'auto':
            assert decision.task == (None if settings.mode == 'passthrough' else settings.mode)
        if last is not None:
            lasted += max(0.0, time - last)
        if before is not None and decision.task != before.task:
            assert lasted >= settings.min_dwell - 1e-9
            lasted = 0.0
        before, last = decision, time


@given(settings, st.lists(st.tuples(times, inputs), max_size=10), times, inputs)
def test_no_past_holds_it_back_for_longer_than_the_dwell(settings, course, time, now):
    """Wherever the time has jumped: after the dwell the task is the one that inputs ask for."""
    decision = None
    for moment, then in course:
        decision = decide(moment, settings, then, decision)
    settled = decide(time, settings, now, decision)
    later = time + settings.min_dwell + 1e-6
    final = decide(later, settings, now, settled)
    afresh = decide(later, settings, now)
    was_fast = replace(afresh, fast=True, since=-inf)
    assert final.task in (afresh.task, decide(later, settings, now, was_fast).task)


@given(settings, settings, times, inputs, inputs)
def test_changed_settings_forget_the_past(first, second, time, then, now):
    before = decide(time, first, then)
    if first != second:
        assert decide(time, second, now, before) == decide(time, second, now)
