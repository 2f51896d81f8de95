"""Reports of one drill over the kernel's links and over userspace ones, side by side, in Markdown.

Usage: links.py KERNEL.json RELAY.json
"""

import json
import sys


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def ms(value):
    return "-" if value is None else f"{value:.1f}"


kernel, relay = read(sys.argv[1]), read(sys.argv[2])
others = {(link["from"], link["to"]): link for link in relay["links"]}
print("| from | to | declared ms | kernel, before | after | relay, before | after | tolerance |")
print("|---|---|---|---|---|---|---|---|")
for link in kernel["links"]:
    other = others[link["from"], link["to"]]
    figures = [ms(side[key]) for side in (link, other) for key in ("measured_rtt_ms", "measured_after_rtt_ms")]
    row = [link["from"], link["to"], ms(link["declared_rtt_ms"]), *figures, f"{link['tolerance_ms']:.2f}"]
    print("| " + " | ".join(row) + " |")
print()
print("| | kernel | relay |")
print("|---|---|---|")


def row(what, figure):
    print(f"| {what} | {figure(kernel)} | {figure(relay)} |")


row("verdict", lambda report: report["verdict"])
row("operations", lambda report: report["operations"])
row("writes lost", lambda report: report["rpo"]["writes"])
for edge in kernel["rto_ms"]:
    row(f"RTO of writes at {edge}, ms", lambda report: ms(report["rto_ms"][edge]["write"]))
    phases = ["detect", "decide", "fence", "promote", "publish", "first_success"]
    row(f"its phases ({', '.join(phases)})", lambda report: ", ".join(ms(report["rto_phases_ms"].get(edge, {}).get(p)) for p in phases))
for kind in ["read", "write"]:
    for edge in kernel[f"{kind}_latency_ms"]:
        def figure(report):
            of = report[f"{kind}_latency_ms"][edge]
            return f"{of['p50']:.1f} / {of['p99']:.1f}"
        row(f"{kind}s at {edge}, p50 / p99 ms", figure)
for pair in kernel["lag_ms"]:
    row(f"lag {pair}, p50 / p99 ms", lambda report: "{p50:.1f} / {p99:.1f}".format(**report["lag_ms"][pair]))
