"""The layouts for Foxglove and RViz: do they show what the node offers?"""

import json
import re

import pytest
import yaml

IMAGE, DIAGNOSTICS = 'sensor_msgs/msg/Image', 'diagnostic_msgs/msg/DiagnosticArray'
SERIES = re.compile(
    r'(?P<topic>/\w+)\.status\[:]\{name=="(?P<name>[^"]+)"}'
    r'\.values\[:]\{key=="(?P<key>[^"]+)"}\.value'
)


@pytest.fixture(scope='module')
def foxglove(pytestconfig):
    path = pytestconfig.rootpath / 'config' / 'foxglove_layout.json'
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def rviz(pytestconfig):
    path = pytestconfig.rootpath / 'config' / 'restore.rviz'
    return yaml.safe_load(path.read_text())['Visualization Manager']['Displays']


def image_type(topic):
    return 'sensor_msgs/msg/CompressedImage' if topic.endswith('/compressed') else IMAGE


def panels_in(layout):
    """Return the panels that a layout's tree has a place for."""
    if isinstance(layout, str):
        return [layout]
    assert layout['direction'] in ('row', 'column') and 0 < layout['splitPercentage'] < 100
    return panels_in(layout['first']) + panels_in(layout['second'])


def test_every_panel_has_one_place(foxglove):
    panels = panels_in(foxglove['layout'])
    assert sorted(panels) == sorted(foxglove['configById'])
    assert {panel.partition('!')[0] for panel in panels} == {
        'Image', 'DiagnosticSummary', 'DiagnosticStatusPanel', 'Parameters', 'Plot'
    }


def test_both_show_what_the_node_offers(rig, foxglove, rviz):
    """By the defaults of all parameters, the camera's name too."""
    rig.launch(precision='float32')
    _, _, values = rig.next_status('restore: camera camera')
    [status] = [s for s in rig.diagnostics[-1].status if s.name == 'restore: camera camera']
    offered = dict(rig.node.get_topic_names_and_types())

    panels = foxglove['configById']
    images = [p['imageMode']['imageTopic'] for p in panels.values() if 'imageMode' in p]
    images += [display['Topic']['Value'] for display in rviz]
    assert {topic.removesuffix('/compressed') for topic in images} == {
        '/camera/restored/compare', '/camera/restored/image_raw'
    }
    assert [offered.get(topic) for topic in images] == [[image_type(topic)] for topic in images]

    detail = panels['DiagnosticStatusPanel!camera']
    assert (detail['selectedName'], detail['selectedHardwareId']) == (
        status.name, status.hardware_id
    )
    series = [SERIES.fullmatch(path['value']) for path in panels['Plot!latency']['paths']]
    assert {match['key'] for match in series} < set(values)
    assert {match['name'] for match in series} == {status.name}
    topics = [match['topic'] for match in series]
    topics += [p['topicToRender'] for p in panels.values() if 'topicToRender' in p]
    assert {str(offered.get(topic)) for topic in topics} == {f"['{DIAGNOSTICS}']"}


def test_rviz_asks_for_what_every_publisher_has(rviz):
    for display in rviz:
        assert display['Class'] == 'rviz_default_plugins/Image' and display['Enabled']
        topic = display['Topic']
        assert (topic['Reliability Policy'], topic['Durability Policy']) == (
            'Best Effort', 'Volatile'
        )
