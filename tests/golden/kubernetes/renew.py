"""Writes jobset.json and core.json beside this file; see README.md for the two sources.

  python tests/golden/kubernetes/renew.py jobset.x-k8s.io_jobsets.yaml _definitions.json
"""

import json
import pathlib
import sys

import yaml

PROSE = ("description", "x-kubernetes-validations", "x-kubernetes-group-version-kind")
KINDS = ("io.k8s.api.networking.v1.NetworkPolicy", "io.k8s.api.core.v1.PersistentVolumeClaim")
REFERENCE = "#/$defs/"


def without_prose(node):
    """A schema as it validates; a property that is called `description` stays."""
    if isinstance(node, list):
        return [without_prose(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: without_prose(one) for name, one in value.items()}
        if key == "properties"
        else without_prose(value)
        for key, value in node.items()
        if key not in PROSE
    }


def jobset_schema(resource):
    """The v1alpha2 schema of the custom resource, without the status that a controller writes."""
    (version,) = (one for one in resource["spec"]["versions"] if one["name"] == "v1alpha2")
    schema = without_prose(version["schema"]["openAPIV3Schema"])
    del schema["properties"]["status"]
    return schema


def needed(definitions, names):
    """The named definitions and all that they refer to."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = without_prose(definitions[name])
            parts = json.dumps(found[name]).split(REFERENCE)
            waiting += [part.split('"')[0] for part in parts[1:]]
    return found


def main(jobset_path, definitions_path):
    resource = yaml.safe_load(pathlib.Path(jobset_path).read_text(encoding="utf-8"))
    definitions = json.loads(pathlib.Path(definitions_path).read_text(encoding="utf-8"))["$defs"]
    schemas = {"jobset": jobset_schema(resource), "core": {"$defs": needed(definitions, KINDS)}}
    for name, schema in schemas.items():
        text = json.dumps(schema, sort_keys=True, separators=(",", ":"))
        (pathlib.Path(__file__).parent / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
