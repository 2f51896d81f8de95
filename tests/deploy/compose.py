"""Checks compose.yaml as `docker compose config` resolves it, without an engine: what starts, with which rights, limits and
addresses, in both stores, and with the profile `observe`.

Usage: compose.py REPOSITORY. Prints one line for each defect.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

from tally import check, end

root = pathlib.Path(sys.argv[1]).resolve()

def compose(*arguments, **variables):
    """What docker compose makes of the files; (status, standard output, standard error)."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    ran = subprocess.run(["docker", "compose", *arguments], cwd=root, env=environment, capture_output=True, text=True)
    return ran.returncode, ran.stdout, ran.stderr


def project(*arguments, **variables):
    status, output, said = compose(*arguments, "config", "--format", "json", **variables)
    if status != 0:
        sys.exit(f"compose: docker compose config fails: {said.strip()}")
    return json.loads(output)


def hosts(text):
    return dict(pair.strip().split("=", 1) for pair in text.split(","))


def core(document, what):
    """What holds for the testbed itself, whatever its store."""
    services = {name: service for name, service in document["services"].items() if not name.endswith("-db")}
    known = set(re.findall(r'"(LONGHAUL_[A-Z_]+|OTEL_[A-Z_]+)"', read("services/longhaul/src/containers/site.rs")))
    known |= set(re.findall(r'"(OTEL_[A-Z_]+)"', read("services/telemetry/src/config.rs"))) | {"OTEL_METRICS_EXPORTER"}
    locations = [name for name, service in services.items() if service.get("command") == ["link"]]
    backbone = hosts(services["control"]["environment"]["LONGHAUL_ADDRESSES"])
    check(set(locations) == set(backbone), f"{what}: agents {sorted(locations)}, addresses {sorted(backbone)}")
    check(len(set(backbone.values())) == len(backbone), f"{what}: two locations have one address")
    for name, service in services.items():
        where = f"{what}: {name}"
        for key in ["mem_limit", "logging", "restart", "healthcheck", "stop_grace_period"]:
            check(key in service, f"{where} has no {key}")
        check(service.get("cap_drop") == ["ALL"], f"{where} keeps capabilities")
        check(service.get("read_only") is True, f"{where} can write to its root")
        rights = {"NET_ADMIN", "KILL"} if name in locations else set()
        check(set(service.get("cap_add", [])) == rights, f"{where} has the capabilities {service.get('cap_add')}")
        check((service.get("user") == "root") == (name in locations), f"{where} runs as {service.get('user')}")
        unknown = {key for key in service["environment"] if key.startswith(("LONGHAUL_", "OTEL_"))} - known
        check(not unknown, f"{where}: the program does not know {sorted(unknown)}")
        if name in locations:
            networks = service["networks"]
            check(networks["backbone"]["ipv4_address"] == backbone[name], f"{where}: another address than announced")
            check(networks["control"]["aliases"] == [f"{name}.oob"], f"{where}: another name out of band")
        elif name != "control":
            place = service["network_mode"].removeprefix("service:")
            check(place in locations and name.startswith(place), f"{where}: it is at {place}")
            waits = service["depends_on"][place]
            check(waits["condition"] == "service_healthy" and waits["restart"], f"{where}: it does not wait for {place}")
            # The agent reaches what a location can lose; its users are not of that.
            shared = service.get("pid") == f"service:{place}"
            check(shared == (service.get("command") != ["traffic"]), f"{where}: pid is {service.get('pid')}")
    builds = [name for name, service in services.items() if "build" in service]
    check(len(builds) == 1, f"{what}: the image is built by {builds}")


def loopback(document, what):
    """No port and no engine socket gets out."""
    for name, service in document["services"].items():
        for port in service.get("ports", []):
            check(port.get("host_ip") == "127.0.0.1", f"{what}: {name} publishes {port}")
        for volume in service.get("volumes", []):
            check("docker.sock" not in str(volume), f"{what}: {name} has the engine's socket")


def observe(plain):
    document = project("--profile", "observe")
    services = document["services"]
    added = set(services) - set(plain["services"])
    check(added == {"jaeger", "prometheus", "grafana"}, f"observe adds {sorted(added)}")
    loopback(document, "observe")
    for name in added:
        check(set(services[name]["networks"]) == {"control"}, f"observe: {name} is on {services[name]['networks']}")
        check(":" in services[name]["image"].rpartition("/")[2], f"observe: {name} has no version")
        for volume in services[name].get("volumes", []):
            if volume["type"] == "bind":
                check(pathlib.Path(volume["source"]).exists(), f"observe: there is no {volume['source']}")
    collector = services["control"]["environment"]["LONGHAUL_COLLECTOR"]
    check(re.fullmatch(r"http://jaeger:(\d+)", collector), f"observe: traces go to {collector}")
    check(collector.rpartition(":")[2] in read("dashboards/jaeger/config.yaml"), "observe: Jaeger does not listen there")
    # Prometheus asks every process that has figures.
    targets = [target for group in json.loads(read("deploy/compose/targets.json")) for target in group["targets"]]
    ports = {"link": [7100], "region": [7000], "gateway": [7000], "traffic": [7200], "control": [8080]}
    expected = set()
    for name, service in plain["services"].items():
        role = (service.get("command") or [""])[0]
        place = service.get("network_mode", name).removeprefix("service:")
        host = "control" if role == "control" else f"{place}.oob"
        expected |= {f"{host}:{port}" for port in ports.get(role, [])}
    check(set(targets) == expected, f"targets.json: {sorted(set(targets) ^ expected)}")


def read(path):
    return (root / path).read_text(encoding="utf-8")


def stores(plain):
    databases = {name: service for name, service in plain["services"].items() if name.endswith("-db")}
    check(len(databases) == 3, f"databases: {sorted(databases)}")
    for name, service in databases.items():
        region = plain["services"][name.removesuffix("-db") + "-api"]
        check("LONGHAUL_DATABASE_URL" in region["environment"], f"{name} is not used")
        words = service["command"]
        for setting in ["fsync=on", "synchronous_commit=on", "listen_addresses=127.0.0.1"]:
            check(setting in words, f"{name}: {setting} is missing")
        check("healthcheck" in service and region["depends_on"][name]["condition"] == "service_healthy", name)
    files = project(LONGHAUL_STORE="sqlite")
    core(files, "sqlite")
    for name, service in files["services"].items():
        check("LONGHAUL_DATABASE_URL" not in service.get("environment", {}), f"sqlite: {name} has a database")
        if name.endswith("-db"):
            check(service["deploy"]["replicas"] == 0, f"sqlite: {name} runs")
    status, _, said = compose("config", "--quiet", LONGHAUL_STORE="paper")
    check(status != 0 and "store-paper.yaml" in said, f"an unknown store: {said}")


def documented():
    """Every variable that the files read is in the documentation."""
    text = read("docs/containers.md")
    for path in [root / "compose.yaml", *sorted((root / "deploy/compose").glob("*.yaml"))]:
        for name in set(re.findall(r"\$\{(LONGHAUL_[A-Z_]+)", path.read_text(encoding="utf-8"))):
            stem = name.rpartition("_")[2]
            check(name in text or f"`_{stem}`" in text, f"docs/containers.md does not know {name} of {path.name}")


plain = project()
core(plain, "compose.yaml")
loopback(plain, "compose.yaml")
stores(plain)
observe(plain)
documented()
sys.exit(end("compose"))
