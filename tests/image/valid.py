"""Holds bills of materials against the schema of the version of CycloneDX that they name, with the validator of its authors."""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    version = json.loads(text)["specVersion"]
    error = JsonStrictValidator(SchemaVersion.from_version(version)).validate_str(text)
    if error:
        sys.exit(f"error: {path} is not CycloneDX {version}: {error}")
    print(f"{path}: valid CycloneDX {version}")
