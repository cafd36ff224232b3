//! Service (core/v1).

use super::Kind::{Bool, Enum, Int, Labels, List, Obj, Objs, Port, Str};
use super::meta::{API_VERSION, KIND, METADATA};
use super::{COUNT, Format, PORT_NUMBER, TEXT, TEXTS, Type, field, inert, required, silent};

const NO_CLOUD: &str = "there is no cloud load balancer; the ports are opened on the host";

pub(super) static SERVICE: Type = Type {
    name: "Service",
    doc: "A stable address and name for pods.",
    fields: &[
        API_VERSION,
        KIND,
        METADATA,
        required("spec", Obj(&SERVICE_SPEC), "Which pods and ports."),
        super::status::SERVICE,
    ],
};

static SERVICE_SPEC: Type = Type {
    name: "ServiceSpec",
    doc: "Which pods and ports.",
    fields: &[
        field("selector", Labels, "Labels of the pods."),
        field("ports", Objs(&SERVICE_PORT), "Ports."),
        field("type", Enum(&["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]), "How far it is reachable."),
        field(
            "clusterIP",
            TEXT,
            "`None` for a headless Service, or an address of the agent's `service_subnet`; chosen and kept by default.",
        ),
        field("clusterIPs", TEXTS, "The same, as a list."),
        field("externalName", TEXT, "The name it stands for, with `type: ExternalName`."),
        field(
            "sessionAffinity",
            Enum(&["None", "ClientIP"]),
            "`ClientIP`: same client address, same pod, while it serves.",
        ),
        inert(
            "sessionAffinityConfig",
            Obj(&AFFINITY_CONFIG),
            "the pod follows from the client's address, nothing is remembered that could be forgotten",
            "Its timeout.",
        ),
        field("publishNotReadyAddresses", Bool, "Clients and names reach pods that are not ready too."),
        inert("externalIPs", List(&Str(Format::Ip)), "addresses of the host are not taken over", "More addresses."),
        inert("loadBalancerIP", TEXT, NO_CLOUD, "Address of the load balancer."),
        inert("loadBalancerSourceRanges", TEXTS, NO_CLOUD, "Clients that are let in."),
        inert("loadBalancerClass", TEXT, NO_CLOUD, "Which load balancer."),
        silent("allocateLoadBalancerNodePorts", Bool, "Whether node ports are opened too."),
        silent("externalTrafficPolicy", Enum(&["Cluster", "Local"]), "There is one node: both are the same."),
        silent("internalTrafficPolicy", Enum(&["Cluster", "Local"]), "There is one node: both are the same."),
        silent("healthCheckNodePort", Int(0, 65535), "Port for a load balancer's checks."),
        silent("ipFamilies", List(&Enum(&["IPv4", "IPv6"])), "Wished address families; virtual addresses are IPv4."),
        silent("ipFamilyPolicy", Enum(&["SingleStack", "PreferDualStack", "RequireDualStack"]), "How many families."),
        silent("trafficDistribution", TEXT, "There is one node."),
    ],
};

static SERVICE_PORT: Type = Type {
    name: "ServicePort",
    doc: "A port of a Service.",
    fields: &[
        required("port", PORT_NUMBER, "Port of the Service."),
        field("name", Str(Format::DnsLabel), "Name; needed when there are several."),
        field("targetPort", Port, "Port of the pods, by number or name; default the same."),
        field("protocol", Enum(&["TCP", "UDP", "SCTP"]), "Transport; default TCP."),
        field("nodePort", Int(0, 65535), "Port of the host, 30000 to 32767; a free one is chosen and kept by default."),
        silent("appProtocol", TEXT, "A hint for proxies."),
    ],
};

static AFFINITY_CONFIG: Type = Type {
    name: "SessionAffinityConfig",
    doc: "Settings of session affinity.",
    fields: &[silent("clientIP", Obj(&CLIENT_IP), "Settings of `ClientIP`.")],
};

static CLIENT_IP: Type = Type {
    name: "ClientIPConfig",
    doc: "Settings of `ClientIP`.",
    fields: &[silent("timeoutSeconds", COUNT, "When an idle client is forgotten.")],
};
