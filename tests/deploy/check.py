"""Checks the manifests for several hosts without a cluster: what kustomize would build, against the rules that an API server
would refuse them by, and against the program itself (roles, ports, environment).

Usage: check.py FOLDER (the folder `deploy`). Prints one line for each check, and one for each defect.
"""

import pathlib
import re
import sys

import yaml

from tally import check, end

ROLES = {"link", "region", "gateway", "traffic", "control"}
PORTS = {"link": 7100, "region": 7000, "gateway": 7000, "traffic": 7200, "control": 8080}
API = {"Service": "v1", "Namespace": "v1", "StatefulSet": "apps/v1", "Deployment": "apps/v1"}
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def load(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document is not None]


def known_variables(root):
    """The environment that the program reads."""
    text = (root / "services/longhaul/src/containers/site.rs").read_text(encoding="utf-8")
    return set(re.findall(r'"(LONGHAUL_[A-Z_]+|OTEL_[A-Z_]+)"', text))


def env_file(path):
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def kustomize(folder):
    """The resources of a kustomization as they would be applied, with the variables that its generators make."""
    where = f"{folder}/kustomization.yaml"
    (kustomization,) = load(folder / "kustomization.yaml")
    check(kustomization.get("kind") == "Kustomization", f"{where}: it is no Kustomization")
    known = {"apiVersion", "kind", "namespace", "namePrefix", "resources", "labels", "images", "configMapGenerator", "secretGenerator"}
    check(set(kustomization) <= known, f"{where}: unknown keys {sorted(set(kustomization) - known)}")
    resources, variables, maps = [], {}, set()
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        check(path.exists(), f"{where}: there is no {name}")
        if path.is_dir():
            inner, more, inner_maps = kustomize(path)
            resources += inner
            variables.update(more)
            maps |= inner_maps
        else:
            resources += load(path)
    prefix = kustomization.get("namePrefix", "")
    for resource in resources:
        if resource["kind"] != "Namespace":
            resource["metadata"]["name"] = prefix + resource["metadata"]["name"]
        if "serviceName" in resource.get("spec", {}):
            resource["spec"]["serviceName"] = prefix + resource["spec"]["serviceName"]
    for generator in kustomization.get("configMapGenerator", []) + kustomization.get("secretGenerator", []):
        maps.add(generator["name"])
        for name in generator.get("envs", []):
            path = folder / name
            # The secret is the user's; the example beside it says what must be in it.
            path = path if path.exists() else path.with_name(path.name + ".example")
            check(path.exists(), f"{where}: there is no {name}")
            variables.update(env_file(path))
        variables.update(dict(literal.split("=", 1) for literal in generator.get("literals", [])))
    return resources, variables, maps


def pod(where, template, selector, maps):
    labels = template["metadata"]["labels"]
    check(selector.items() <= labels.items(), f"{where}: the selector does not match the pods' labels")
    names = [container["name"] for container in template["spec"]["containers"]]
    check(len(set(names)) == len(names), f"{where}: two containers have one name")
    for container in template["spec"]["containers"]:
        here = f"{where}: container {container['name']}"
        check(len(container["args"]) == 1 and container["args"][0] in ROLES, f"{here}: args {container['args']}")
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        check(PORTS[container["args"][0]] in ports.values(), f"{here}: its role listens elsewhere")
        check(container["readinessProbe"]["httpGet"]["port"] in ports, f"{here}: the probe's port is not one of its own")
        check("limits" in container["resources"], f"{here}: no limit of memory")
        references = [next(iter(source.values()))["name"] for source in container["envFrom"]]
        check(set(references) <= maps | {"longhaul"}, f"{here}: envFrom {references}")
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        check(mounts <= {"data"}, f"{here}: mounts {mounts}")


def manifests(folder, known):
    overlays = sorted((folder / "kubernetes/overlays").iterdir())
    hosts = {}
    for overlay in [*overlays, folder / "kubernetes/control"]:
        resources, variables, maps = kustomize(overlay)
        where = overlay.name
        unknown = {name for name in variables if name not in known}
        check(not unknown, f"{where}: the program does not know {sorted(unknown)}")
        if overlay.parent.name == "overlays":
            check(variables.get("LONGHAUL_LOCATION") == where, f"{where}: LONGHAUL_LOCATION is another one")
            hosts = dict(pair.split("=") for pair in variables["LONGHAUL_ADDRESSES"].split(","))
        services = {}
        for resource in resources:
            kind, name = resource["kind"], resource["metadata"]["name"]
            what = f"{where}: {kind} {name}"
            check(API.get(kind) == resource["apiVersion"], f"{what}: apiVersion {resource['apiVersion']}")
            check(NAME.fullmatch(name) is not None, f"{what}: no DNS label")
            spec = resource.get("spec", {})
            if kind == "Service":
                services[name] = spec["selector"]
            if kind in ("StatefulSet", "Deployment"):
                pod(what, spec["template"], spec["selector"]["matchLabels"], maps)
                labels = spec["template"]["metadata"]["labels"].items()
                check(any(selector.items() <= labels for selector in services.values()), f"{what}: no service selects it")
                if kind == "StatefulSet":
                    check(spec["serviceName"] in services, f"{what}: there is no service {spec['serviceName']}")
        if where in hosts:
            check(hosts[where] in services, f"{where}: LONGHAUL_ADDRESSES names {hosts[where]}, which is no service")
    check(set(hosts) == {overlay.name for overlay in overlays}, f"overlays and LONGHAUL_ADDRESSES differ: {sorted(hosts)}")


def stack(folder, known):
    (document,) = load(folder / "swarm/stack.yaml")
    for name, service in document["services"].items():
        where = f"stack: {name}"
        role = service["command"][0]
        check(role in ROLES, f"{where}: command {service['command']}")
        check(f":{PORTS[role]}/" in service["healthcheck"]["test"][-1], f"{where}: the check asks another port")
        unknown = set(service["environment"]) - known
        check(not unknown, f"{where}: the program does not know {sorted(unknown)}")
        # What a swarm ignores or refuses.
        refused = {"build", "depends_on", "network_mode", "pid", "restart", "container_name", "mem_limit"} & set(service)
        check(not refused, f"{where}: a swarm has no {sorted(refused)}")
        constraints = service["deploy"]["placement"]["constraints"]
        check(len(constraints) == 1 and constraints[0].startswith("node.labels.longhaul.location == "), where)
        for volume in service.get("volumes", []):
            check(volume.split(":")[0] in document["volumes"], f"{where}: volume {volume} is not declared")
        for config in service["configs"]:
            check(config["source"] in document["configs"], f"{where}: config {config} is not declared")
    for name, config in document["configs"].items():
        check((folder / "swarm" / config["file"]).exists(), f"stack: config {name}: there is no {config['file']}")


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    known = known_variables(folder.parent)
    check(len(known) > 10, f"the program's environment is not found: {sorted(known)}")
    manifests(folder, known)
    stack(folder, known)
    return end("deploy")


sys.exit(main())
