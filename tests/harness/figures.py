"""The figures of a drill's report in one line."""

import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    report = json.load(file)
links = report["links"]
off = max(abs(link["measured_rtt_ms"] - link["declared_rtt_ms"]) for link in links)
recovery = [edge["write"] for edge in report["rto_ms"].values() if edge.get("write")]
print(
    f"{report['verdict']}, {len(links)} links within {off:.2f} ms of what is declared,",
    f"RTO of writes {max(recovery, default=0):.0f} ms, {report['rpo']['writes']} writes lost",
)
