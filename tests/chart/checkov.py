"""Holds what checkov found against the checks that are explained in checkov.yaml."""

import json
import sys

import yaml

said, explained = sys.argv[1:]
with open(said, encoding="utf-8") as file:
    reports = json.load(file)
with open(explained, encoding="utf-8") as file:
    explained = yaml.safe_load(file)
reports = reports if isinstance(reports, list) else [reports]

failed = {}
checked = 0
for report in reports:
    results = report.get("results", {})
    checked += len(results.get("passed_checks", []))
    for check in results.get("failed_checks", []):
        key = (check["check_id"], check["resource"].split(".")[0])
        failed.setdefault(key, (check["check_name"], set()))[1].add(f'{check["resource"]} of {check["file_path"]}')
if checked < 100:
    sys.exit(f"error: checkov has looked at next to nothing ({checked} checks passed)")

wrong = 0
used = set()
for (check, kind), (name, where) in sorted(failed.items()):
    reason = explained.get(check, {}).get(kind)
    if reason:
        used.add((check, kind))
        continue
    wrong += 1
    print(f"{check} fails for {kind}: {name}")
    for place in sorted(where)[:5]:
        print(f"    {place}")
for check, kinds in explained.items():
    for kind, reason in kinds.items():
        if (check, kind) not in used:
            wrong += 1
            print(f"{check} is explained for {kind} in checkov.yaml and does not fail any more: take it out")
if wrong:
    sys.exit(f"error: {wrong} findings; mend the chart, or explain them in tests/chart/checkov.yaml")
print(f"checkov: {checked} checks passed, {len(used)} that fail are explained, nothing else fails")
