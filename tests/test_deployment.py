"""deploy/: what runs several chats and engines says of each other what the others do."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from storygen.settings import ROOT, Settings
from tests.test_container import bytes_of

DEPLOY = ROOT / "deploy"
KUBERNETES = "1.32"
SETTINGS = {f"STORYGEN_{name.upper()}" for name in Settings.model_fields}

NGINX = (DEPLOY / "nginx.conf").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CHATS = {name: service for name, service in SERVICES.items() if name.startswith("chat-")}
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "storygen"}

FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS = [
    (f"{file.name}-{found['kind']}-{found.get('metadata', {}).get('name')}", found)
    for file in FILES
    for found in yaml.safe_load_all(file.read_text())
]
MANIFESTS = {name: found for name, found in OBJECTS if found["kind"] != "Kustomization"}
DEPLOYMENTS = {
    found["metadata"]["name"]: found["spec"]["template"]["spec"]
    for found in MANIFESTS.values()
    if found["kind"] == "Deployment"
}


def longest_end(name: str) -> float:
    """Seconds that a chat or an engine may take to end in order."""
    file, constant = ("serve/command.py", "ENDING_SECONDS")
    if name.startswith("chat"):
        file, constant = ("chat/ending.py", "SECONDS")
    found = re.search(rf"^{constant} = ([\d.]+)", (ROOT / "storygen" / file).read_text(), re.M)
    assert found is not None
    return float(found[1])


def named(kind: str) -> dict[str, dict[str, Any]]:
    """The manifests of a kind, by their names."""
    return {f["metadata"]["name"]: f for f in MANIFESTS.values() if f["kind"] == kind}


def test_only_settings_that_exist_are_set() -> None:
    files = [DEPLOY / "compose.yaml", DEPLOY / "env.example", ROOT / "docs/scale-out.md", *FILES]
    for text in (file.read_text(encoding="utf-8") for file in files):
        assert set(re.findall(r"STORYGEN_[A-Z_]+", text)) <= SETTINGS


def test_the_proxy_knows_every_chat() -> None:
    for upstream in re.findall(r"upstream \w+ \{(.*?)\}", NGINX, re.DOTALL):
        servers = re.findall(r"^\s+server (\S+):8000 max_fails=0;", upstream, re.M)
        assert servers == list(CHATS)


def test_every_proxy_that_is_shown_has_browsers_stay_with_tls() -> None:
    shown = (ROOT / "docs/operations.md").read_text()
    for beginning in ("stories.example {", "    listen 443 ssl;"):
        example = shown.partition(beginning)[2].partition("```")[0]
        assert "Strict-Transport-Security max-age=31536000" in example
    assert "add_header Strict-Transport-Security $strictly always;" in NGINX


def test_chats_believe_the_proxys_network_alone() -> None:
    (network,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    for chat in CHATS.values():
        assert chat["environment"]["STORYGEN_TRUSTED_PROXIES"] == network["subnet"]
    assert "back" not in SERVICES["proxy"]["networks"]
    assert COMPOSE["networks"]["back"] == {"internal": True}


def test_only_the_proxy_is_published_and_to_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"proxy"}
    assert all(port.startswith("127.0.0.1:") for port in published["proxy"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_rights_and_bounds(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert bytes_of(service["mem_limit"]) <= 8 * 2**30
    assert 64 <= service["pids_limit"] <= 1024
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if name not in OURS:  # our image has its own
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["user"].split(":")[0] not in ("0", "root")


def test_no_secret_is_written_down() -> None:
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert {name for name, value in example.items() if value} == {"STORYGEN_ALLOW_ORIGINS"}
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    assert asked == set(example)
    assert named("Secret") == {}


def test_chats_have_nothing_that_lasts_and_the_database_has() -> None:
    for service in OURS.values():
        assert "volumes" not in service
        assert service["tmpfs"][0].startswith("/data:")
    assert SERVICES["database"]["volumes"] == ["stories:/var/lib/postgresql/data"]
    assert "stories" in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_there_is_time_to_end_in_order(name: str) -> None:
    assert int(OURS[name]["stop_grace_period"].removesuffix("s")) > longest_end(name)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_of_its_schema(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], KUBERNETES, strict=True)


def test_the_kustomization_has_every_file() -> None:
    (kustomization,) = (found for _, found in OBJECTS if found["kind"] == "Kustomization")
    files = {file.name for file in FILES} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    images = {c["image"] for spec in DEPLOYMENTS.values() for c in spec["containers"]}
    assert {image["name"] for image in kustomization["images"]} == images == {"storygen"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_no_rights_bounds_and_probes(name: str) -> None:
    spec = DEPLOYMENTS[name]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > waits + longest_end(name)
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"/data", "/tmp"}
    assert {volume["name"] for volume in spec["volumes"]} == {
        mount["name"] for mount in container["volumeMounts"]
    }


def test_services_budgets_and_scalers_find_their_pods() -> None:
    for name, deployment in named("Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert named("Service")[name]["spec"]["selector"] == labels
        assert named("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"] == labels
        (container,) = DEPLOYMENTS[name]["containers"]
        (port,) = container["ports"]
        (served,) = named("Service")[name]["spec"]["ports"]
        assert served["targetPort"] == port["name"]
        assert served["port"] == port["containerPort"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] == port["name"]
    for scaler in named("HorizontalPodAutoscaler").values():
        assert scaler["spec"]["scaleTargetRef"]["name"] in DEPLOYMENTS
        assert "replicas" not in named("Deployment")[scaler["metadata"]["name"]]["spec"]


def test_chats_reach_their_engine_where_it_is() -> None:
    (container,) = DEPLOYMENTS["chat"]["containers"]
    urls = {variable["name"]: variable.get("value") for variable in container["env"]}
    services = named("Service")["engine"]["spec"]["ports"]
    assert urls["STORYGEN_ENGINE_URL"] == f"http://engine:{services[0]['port']}"
    for chat in CHATS.values():
        assert chat["environment"]["STORYGEN_ENGINE_URL"] == "http://engine:8001"
    assert SERVICES["engine"]["command"][-1] == "8001"


def test_chats_and_engine_have_the_same_key() -> None:
    """The engine's own: with a user's, chats could not speak for everybody."""
    services = [*CHATS.values(), SERVICES["engine"]]
    (key,) = {service["environment"]["STORYGEN_ENGINE_KEY"] for service in services}
    assert key.startswith("${STORYGEN_ENGINE_KEY:?")  # asked for: an empty one is none
    (engine,) = DEPLOYMENTS["engine"]["containers"]
    (chat,) = DEPLOYMENTS["chat"]["containers"]
    secret = {"name": "storygen", "key": "STORYGEN_ENGINE_KEY"}
    assert {"secretRef": {"name": "storygen"}} in chat["envFrom"]
    assert {"secretKeyRef": secret} in [variable.get("valueFrom") for variable in engine["env"]]


def test_a_story_is_sent_to_one_chat_and_nobody_else_is_spoken_to() -> None:
    (ingress,) = named("Ingress").values()
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/affinity"] == "cookie"
    assert annotations["nginx.ingress.kubernetes.io/session-cookie-change-on-failure"] == "true"
    nobody = named("NetworkPolicy")["nobody"]["spec"]
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
