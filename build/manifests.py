"""Check the Kubernetes files of build/cluster/ against the schemas of what reads them; 1 where something is wrong.

    python -m venv /tmp/checking && /tmp/checking/bin/pip install kubernetes-validate
    /tmp/checking/bin/python build/manifests.py CRD.yaml [CRD.yaml ...]

CRD.yaml are the operators' own definitions, in ``manifests/base/crds/``: of kubeflow/training-operator (v1)
kubeflow.org_pytorchjobs, of kubeflow/trainer (v2) trainer.kubeflow.org_trainjobs and _trainingruntimes. A key that they
do not know is a fault here, as for ``kubectl apply --validate=strict``. Pods inside are also checked as Kubernetes' own
pods, by kubernetes-validate, which brings the schemas. Neither a cluster nor a network is needed.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

FILES = sorted((Path(__file__).parent / "cluster").glob("*.yaml"))


def main(definitions: list[Path]) -> int:
    schemas = {key: schema for path in definitions for key, schema in _schemas(path)}
    wrong = 0
    for file in FILES:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            key = document["apiVersion"], document["kind"]
            faults = list(_faults(document, schemas.get(key)))
            wrong += len(faults)
            print(f"{file.name}: {' '.join(key)}:", "\n  ".join(["", *faults]) if faults else "valid")
    return min(wrong, 1)


def _schemas(path: Path) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    """(apiVersion, kind) and the schema of each version of a definition."""
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
    for version in spec["versions"]:
        schema = _strict(version["schema"]["openAPIV3Schema"])
        yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


def _strict(schema: Any) -> Any:
    """The same schema, that refuses keys it does not name, as Kubernetes does where it is asked to be strict."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
        strict |= {} if is_open or not schema["properties"] else {"additionalProperties": False}
        if {"apiVersion", "kind"} <= schema["properties"].keys():  # of the whole: metadata is anything
            strict["properties"]["metadata"] = {"type": "object"}
    return strict


def _faults(document: dict[str, Any], schema: dict[str, Any] | None) -> Iterator[str]:
    if schema is None:
        yield "no definition was given for it"
    else:
        for error in jsonschema.Draft7Validator(schema).iter_errors(document):
            yield f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
    for pod in _pods(document):
        template = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
        try:
            kubernetes_validate.validate(template, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"pod: {str(error).splitlines()[0]}"


def _pods(value: Any) -> Iterator[dict[str, Any]]:
    """All specs of pods in a document: they have containers."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _pods(each)


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
