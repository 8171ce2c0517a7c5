"""
Print the JSON schema of a parameter file, from the table of the node's parameters.

    python -m iov_restore_ros.tools.parameter_schema > schema/restore.schema.json

An editor that knows YAML schemas checks and completes `config/restore.yaml` with it.
"""

import json
import sys
from typing import Any

from iov_restore_ros.node.parameters import PARAMETERS, NodeParameter

TYPES = {bool: 'boolean', int: 'integer', float: 'number', str: 'string', list: 'array'}
RCLPY_PARAMETERS = '^(use_sim_time|start_type_description_service|qos_overrides)'


def parameter_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 7) of a parameter file keyed `/**`, as Autoware writes it."""
    return {
        '$schema': 'http://json-schema.org/draft-07/schema#',
        'title': 'Parameters of the node restore',
        'type': 'object',
        'definitions': {
            'restore': {
                'type': 'object',
                'properties': {name: _property(p) for name, p in PARAMETERS.items()},
                'patternProperties': {RCLPY_PARAMETERS: {}},
                'additionalProperties': False,
            },
        },
        'properties': {
            '/**': {
                'type': 'object',
                'properties': {'ros__parameters': {'$ref': '#/definitions/restore'}},
                'required': ['ros__parameters'],
                'additionalProperties': False,
            },
        },
        'required': ['/**'],
        'additionalProperties': False,
    }


def _property(parameter: NodeParameter) -> dict[str, Any]:
    schema: dict[str, Any] = {
        'type': TYPES[type(parameter.default)],
        'description': parameter.text(),
        'default': parameter.default,
    }
    if parameter.choices:
        schema['enum'] = list(parameter.choices)
    if parameter.minimum is not None:
        schema['minimum'] = parameter.minimum
    if parameter.maximum is not None:
        schema['maximum'] = parameter.maximum
    if parameter.numbers:
        return schema | {'items': {'type': 'number'}}
    texts: dict[str, Any] = {}
    if parameter.form:
        texts['pattern'] = f'^({parameter.form.pattern})$'
    if isinstance(parameter.default, list):
        return schema | {
            'items': {'type': 'string', **texts}, 'minItems': 1, 'uniqueItems': True
        }
    return schema | texts


def main() -> int:
    """Print the schema; returns the exit status."""
    print(json.dumps(parameter_schema(), indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
