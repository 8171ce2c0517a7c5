"""The table of parameters, and what must agree with it: files, schema, docs, launch file."""

import ast
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters
from rclpy.validate_topic_name import validate_topic_name
from ros_harness import make_message
from std_msgs.msg import Float32

from iov_restore_ros.inference import Restorer
from iov_restore_ros.model import PRESETS, shipped_tasks
from iov_restore_ros.node.images import view
from iov_restore_ros.node.mode_policy import MODES
from iov_restore_ros.node.parameters import PARAMETERS, TOPIC_NAMESPACE
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.tools.parameter_schema import parameter_schema

REMAKE = 'python -m iov_restore_ros.tools.parameter_schema > schema/restore.schema.json'

# Where the other dynamic parameters are changed while the node runs.
CHANGED_ELSEWHERE = {
    'on_error': 'test_node.py', 'lazy': 'test_manners.py', 'model': 'test_lifecycle.py',
    'deblur_weights': 'test_lifecycle.py', 'derain_weights': 'test_lifecycle.py',
    'compressed_format': 'test_transports.py', 'jpeg_quality': 'test_transports.py',
    'use_past': 'test_node_past.py', 'max_gap': 'test_node_past.py',
    'shutter': 'test_node_past.py', 'imu': 'test_imu.py', 'imu_rotation': 'test_imu.py',
    'imu_time_offset': 'test_imu.py', 'readout': 'test_imu.py', 'imu_wait': 'test_imu.py',
    'clean_glass': 'test_node_glass.py', 'glass_weights': 'test_node_glass.py',
    'dirty_glass': 'test_node_glass.py',
    'unveil': 'test_node_veil.py', 'veil_weights': 'test_node_veil.py',
}


@pytest.fixture(scope='module')
def root(pytestconfig):
    return pytestconfig.rootpath


@pytest.fixture(scope='module')
def launch_file(root):
    """Return ARGUMENTS and choices_of of the launch file, which need no launch installed."""
    tree = ast.parse((root / 'launch' / 'restore.launch.py').read_text())
    tree.body = [
        statement for statement in tree.body
        if (isinstance(statement, ast.Assign) and statement.targets[0].id == 'ARGUMENTS')
        or (isinstance(statement, ast.FunctionDef) and statement.name == 'choices_of')
    ]
    names = {}
    exec(compile(tree, 'restore.launch.py', 'exec'), names)  # noqa: S102  ours
    return names['ARGUMENTS'], names['choices_of']


def table(path, header):
    """Return the rows (cells without backticks) of the table in a Markdown file."""
    lines = path.read_text().split(f'{header}\n', 1)[1].split('\n\n')[0].splitlines()[1:]
    return [[cell.strip() for cell in line.replace('`', '').split('|')[1:-1]] for line in lines]


def optional():
    """Return what files and docs may leave out: tasks and generators that have no weights yet."""
    tasks = [task for task in TASKS.values() if task.name not in shipped_tasks('fast')]
    return {
        *(name for task in tasks for name in (task.name, f'{task.name}_weights', *task.weathers)),
        *(preset for preset in PRESETS if not shipped_tasks(preset)),
    }


def fits_schema(name, value):
    content = {'/**': {'ros__parameters': {name: value}}}
    return jsonschema.Draft7Validator(parameter_schema()).is_valid(content)


def test_schema_file_is_up_to_date(root):
    assert json.loads((root / 'schema' / 'restore.schema.json').read_text()) == (
        parameter_schema()
    ), REMAKE


def test_parameter_file_holds_every_default_and_names_every_choice(root):
    text = (root / 'config' / 'restore.yaml').read_text()
    content = yaml.safe_load(text)
    defaults = {name: parameter.default for name, parameter in PARAMETERS.items()}
    given = content['/**'].pop('ros__parameters')
    assert content == {'/**': {}} and given.items() <= defaults.items()
    assert PARAMETERS.keys() - given.keys() <= optional()
    jsonschema.validate({'/**': {'ros__parameters': given}}, parameter_schema())
    comments = dict(re.findall(r'^    (\w+):.*# (.*)', text, re.MULTILINE))
    for name, parameter in PARAMETERS.items():
        for choice in set(parameter.choices or ()) - optional():
            if 'docs/parameters.md' in comments[name]:
                break
            assert re.search(rf'\b{choice}\b', comments[name]), f'{name}: {choice}'


def test_docs_say_the_same(root):
    rows = table(root / 'docs' / 'parameters.md', '| parameter | default | may change | |')
    there = {row[0] for row in rows}
    assert PARAMETERS.keys() - there <= optional()
    known = [p for p in PARAMETERS.values() if p.name in there]
    for row, p in zip(rows, known, strict=True):
        told = [choice for choice in p.choices or () if re.search(rf'\b{choice}\b', row[3])]
        assert set(p.choices or ()) - set(told) <= optional()
        assert row == [
            p.name,
            yaml.safe_dump(p.default, default_flow_style=True).split('\n')[0],
            'any time' if p.dynamic else 'before configure',
            replace(p, choices=tuple(told) or None).text().replace('`', ''),
        ]


def test_launch_arguments_say_the_same(root, launch_file):
    launch_arguments, choices_of = launch_file
    schema = json.loads((root / 'schema' / 'restore.schema.json').read_text())
    for name in PARAMETERS.keys() & launch_arguments.keys():
        default, text, _ = launch_arguments[name]
        choices = choices_of(name, schema)
        parameter = PARAMETERS[name]
        assert default == '', 'the parameter file decides'
        assert text.startswith(parameter.description)
        assert text.endswith('empty: as the parameter file says')
        if isinstance(parameter.default, bool):
            assert choices == ['', 'true', 'false']
        else:
            assert choices == (['', *parameter.choices] if parameter.choices else [])
    assert table(root / 'docs' / 'parameters.md', '| launch argument | default | |') == [
        [name, default or "''", text.replace('`', '')]
        for name, (default, text, _) in launch_arguments.items()
    ]


def test_schema_and_node_refuse_the_same(rig):
    rig.launch(autostart=False)
    verdicts = set()
    for value in (
        True, 0, 1, -1, 100, 101, -0.5, 2.5, '', 'auto', 'cpu', 'cuda:1', 'cuda:', 'gpu', 'fast',
        'rain', 'png', 'drop', 'raw', 'float32', 'deblur', 'a b', ['front', 'left/wide'],
        ['a', 'a'], ['9'], ['a/'], [''], ['a', 'b c'],
        [0.0, 0.0, 0.0, 1.0],
    ):
        results = rig.set_parameters(**dict.fromkeys(PARAMETERS, value))
        for name, result in zip(PARAMETERS, results, strict=True):
            assert result.successful == fits_schema(name, value), f'{name}: {value!r} {result}'
            assert result.successful or result.reason
            verdicts.add((name, result.successful))
    assert verdicts == {(name, good) for name in PARAMETERS for good in (True, False)}


@pytest.mark.parametrize(('content', 'good'), [
    ({'/**': {'ros__parameters': {'use_sim_time': True, 'mode': 'derain'}}}, True),
    ({'/**': {'ros__parameters': {'qos_overrides': {'/front/image_raw': {
        'subscription': {'reliability': 'reliable'}}}}}}, True),
    ({'/**': {'ros__parameters': {'moed': 'derain'}}}, False),
    ({'/**': {'ros__parameters': {'mode': False}}}, False),  # `off` in YAML
    ({'/**': {'ros__parameters': {'cameras': []}}}, False),
    ({'/**': {'mode': 'derain'}}, False),
    ({'restore': {'mode': 'derain'}}, False),
])
def test_parameter_files(content, good):
    assert jsonschema.Draft7Validator(parameter_schema()).is_valid(content) == good


@given(st.from_regex(TOPIC_NAMESPACE.pattern, fullmatch=True))
def test_every_camera_name_makes_topics(name):
    validate_topic_name(f'{name}/restored/image_raw')


def test_describe_shows_range_choices_and_when_it_may_change(rig):
    rig.launch(autostart=False)
    described = rig.call(DescribeParameters, '/restore/describe_parameters',
                         DescribeParameters.Request(names=list(PARAMETERS))).descriptors
    shown = {d.name: d for d in described}
    for name, parameter in PARAMETERS.items():
        assert shown[name].description == parameter.description
        assert ('any time' in shown[name].additional_constraints) == parameter.dynamic
    assert shown['mode'].additional_constraints == (
        f'one of {", ".join(MODES)}; may change at any time'
    )
    assert shown['min_dwell'].additional_constraints.startswith('at least 0.0; ')
    assert shown['vehicle_speed'].type == ParameterType.PARAMETER_DOUBLE
    [quality] = shown['jpeg_quality'].integer_range
    assert (quality.from_value, quality.to_value) == (1, 100)
    assert shown['device'].additional_constraints == (
        'auto, cpu, cuda or cuda:N; takes effect at configure'
    )


def test_every_dynamic_parameter_takes_effect_on_the_next_frame(rig, photograph):
    """A change by parameter does not wait for `min_dwell` either."""
    restorer = Restorer(device='cpu', precision='float32')
    results = {task: restorer.restore([photograph], task)[0] for task in ('deblur', 'derain')}
    results['none'] = photograph
    rig.start(
        mode='deblur', rain_type='std_msgs/msg/Float32', input_timeout=0.0, min_dwell=1000.0,
        device='cpu',
    )
    rain = rig.node.create_publisher(Float32, 'rain', 1)
    rig.wait(rain.get_subscription_count)
    rig.spin(0.3)
    numbers = itertools.count()

    def task():
        got = view(rig.round_trip(make_message(photograph, next(numbers))))
        return next(task for task, picture in results.items() if np.array_equal(got, picture))

    changed = set()

    def change(name, value, before, after):
        assert task() == before, name
        [result] = rig.set_parameters(**{name: value})
        assert result.successful, result.reason
        assert task() == after, name
        changed.add(name)

    change('mode', 'auto', 'deblur', 'none')
    change('weather', 'rain', 'none', 'derain')
    change('weather', 'clear', 'derain', 'none')
    change('vehicle_speed', 20.0, 'none', 'deblur')
    change('skip_sharp', True, 'deblur', 'none')
    change('skip_sharp', False, 'none', 'deblur')
    change('deblur_min_speed', 30.0, 'deblur', 'none')
    rain.publish(Float32(data=0.4))
    rig.spin(0.5)
    change('min_dwell', 0.0, 'none', 'derain')
    rig.set_parameters(min_dwell=1000.0)
    change('rain_threshold', 0.5, 'derain', 'none')
    rig.set_parameters(weather='rain')
    change('input_timeout', 0.01, 'none', 'derain')
    assert changed | CHANGED_ELSEWHERE.keys() == {n for n, p in PARAMETERS.items() if p.dynamic}


def test_a_name_that_is_wrong_is_told_with_the_right_one(rig):
    rig.start(modee='deblur', use_sim_time=False)
    assert 'unknown parameter modee is ignored; did you mean mode?' in rig.said()
    assert rig.said().count('unknown parameter') == 1


@pytest.mark.parametrize(('arguments', 'status', 'text'), [
    (['--help'], 0, 'max_gap (default'),
    (['--mode', 'deblur'], 2, 'unrecognized arguments: --mode'),
])
def test_the_command_line_is_read(arguments, status, text):
    command = [sys.executable, '-m', 'iov_restore_ros.node.restore_node', *arguments]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        env={k: v for k, v in os.environ.items() if k != '_ROS_WHEELS_BOOTSTRAP_COMPLETE'},
    )
    assert (result.returncode, text in result.stdout) == (status, True), result.stdout
