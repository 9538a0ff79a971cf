"""Checks the objects of Kubernetes' own in a file strictly, and writes the others as JSON for who knows their kinds.

usage: lint_deploy.py BUILT PREFIX VERSION...
"""

import json
import sys

import kubernetes_validate
import yaml

built, prefix, *versions = sys.argv[1:]
with open(built, encoding="utf-8") as file:
    objects = [found for found in yaml.safe_load_all(file) if found]
others, faults, count = [], 0, 0
for found in objects:
    name = f"{found['kind']} {found['metadata']['name']}"
    # Kubernetes' own groups have no dot, or end so.
    group = found["apiVersion"].split("/")[0] if "/" in found["apiVersion"] else ""
    if "." in group and not group.endswith(".k8s.io"):
        others.append(found)
        continue
    for version in versions:
        try:
            kubernetes_validate.validate(found, version, strict=True)
            count += 1
        except kubernetes_validate.ValidationError as error:
            faults += 1
            print(f"{built}: {name}, Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            faults += 1
            print(f"{built}: {name}, Kubernetes {version}: {error}")
with open(f"{prefix}.others.json", "w", encoding="utf-8") as file:
    json.dump(others, file)
print(f"{built}: {len(objects) - len(others)} objects are as Kubernetes {', '.join(versions)} want them ({count} checks)"
      if faults == 0 else f"{built}: {faults} faults")
sys.exit(1 if faults or count == 0 else 0)
