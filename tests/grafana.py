#!/usr/bin/env python3
"""Checks dashboards against Grafana's own schema: each is read into the types of Grafana's foundation SDK and written
again; whatever does not come back is unknown there.

    tests/grafana.py FILE...

Ends with status 1, and a line for each difference, if there is one; with status 3 if the SDK is not installed
(pip install grafana-foundation-sdk).
"""
import json
import sys

try:
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard
except ImportError:
    sys.exit(3)

# What the Prometheus data source reads from an annotation, beyond the schema that all data sources share.
OF_PROMETHEUS = ("/annotations/list/", ("step", "titleFormat"))


def differences(before, after, path=""):
    """Each place where `after` lacks or changes something of `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from differences(value, after[key], f"{path}/{key}")
            elif not (path.startswith(OF_PROMETHEUS[0]) and key in OF_PROMETHEUS[1]):
                yield f"{path}/{key} is unknown"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after)):
            yield from differences(one, other, f"{path}/{place}")
    elif before != after:
        yield f"{path} is {before!r}, and {after!r} to Grafana"


def main():
    plugins.register_default_plugins()
    wrong = 0
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            before = json.load(file)
        after = json.loads(JSONEncoder().encode(Dashboard.from_json(before)))
        for difference in differences(before, after):
            wrong += 1
            print(f"{name}: {difference}")
    return 1 if wrong else 0


sys.exit(main())
