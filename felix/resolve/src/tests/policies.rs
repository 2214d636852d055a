//! Filters, defaults, and what RFC 8212 asks for.

use super::*;
use caracal_bgp_core::policy::ApplyContext;

/// What to evaluate in a speaker: its configuration, whether it has a Node, its peer, its filters.
struct Case {
    configuration: &'static str,
    node: bool,
    peer: &'static str,
    filters: &'static str,
}

impl Case {
    fn resolved(&self) -> Resolved {
        let node = if self.node {
            "---\napiVersion: v1\nkind: Node\nmetadata: {name: r1}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n"
        } else {
            ""
        };
        let Self {
            configuration,
            peer,
            filters,
            ..
        } = self;
        let text = format!(
            "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{asNumber: 65000, routerID: 10.0.0.1, nodeToNodeMeshEnabled: false{configuration}}}
{node}---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: p}}
spec: {{peerIP: 10.0.1.1, {peer}}}
{filters}"
        );
        resolved(&text, "r1", &[], &[])
    }
}

const BOTH_WAYS: &str = "---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: f}
spec:
  importV4: [{cidr: 10.244.0.0/16, matchOperator: In, action: Accept}]
  exportV4: [{cidr: 10.245.0.0/16, matchOperator: In, action: Accept}]
";

#[test]
fn an_external_peer_needs_a_policy_and_transit_or_a_node_is_one() {
    use Verdict::{Accept, Reject};
    const EXTERNAL: &str = "asNumber: 65001";
    const INTERNAL: &str = "asNumber: 65000";
    // (configuration, node, peer, filters) -> (taken, own told, learnt told, reason)
    let rows = [
        ("", false, EXTERNAL, (Reject, Reject, Reject), true),
        ("", true, EXTERNAL, (Accept, Accept, Reject), false),
        (
            ", transit: true",
            false,
            EXTERNAL,
            (Accept, Accept, Accept),
            false,
        ),
        (
            ", transit: true, requireFilters: true",
            false,
            EXTERNAL,
            (Reject, Reject, Reject),
            true,
        ),
        (
            ", requireFilters: true",
            true,
            EXTERNAL,
            (Reject, Reject, Reject),
            true,
        ),
        (
            ", requireFilters: true",
            false,
            INTERNAL,
            (Accept, Accept, Accept),
            false,
        ),
        ("", false, INTERNAL, (Accept, Accept, Accept), false),
        (
            "",
            true,
            "asNumber: 65001, requireFilters: true",
            (Reject, Reject, Reject),
            true,
        ),
        (
            ", requireFilters: true",
            true,
            "asNumber: 65001, requireFilters: false",
            (Accept, Accept, Reject),
            false,
        ),
        (
            "",
            false,
            "asNumber: 65000, requireFilters: true",
            (Reject, Reject, Reject),
            true,
        ),
        (
            "",
            false,
            "peerAS: Internal",
            (Accept, Accept, Accept),
            false,
        ),
        (
            "",
            false,
            "peerAS: External",
            (Reject, Reject, Reject),
            true,
        ),
    ];
    for (configuration, node, peer_spec, expected, reason) in rows {
        let resolved = Case {
            configuration,
            node,
            peer: peer_spec,
            filters: "",
        }
        .resolved();
        let session = peer(&resolved, "p");
        let (own, learnt) = told(session, "192.0.2.0/24");
        let found = (taken(session, "192.0.2.0/24"), own, learnt);
        assert_eq!(found, expected, "{configuration} {node} {peer_spec}");
        let reasons: Vec<_> = resolved.findings.iter().map(|found| found.reason).collect();
        let expected: &[&str] = if reason { &[reasons::NO_POLICY] } else { &[] };
        assert_eq!(reasons, expected, "{configuration} {node} {peer_spec}");
    }
}

#[test]
fn of_a_node_only_pools_are_taken_whatever_its_as() {
    for (peer_as, address, elsewhere) in [
        ("asNumber: 65000", "10.0.0.2", Verdict::Reject),
        ("asNumber: 65002", "10.0.0.2", Verdict::Reject),
        ("asNumber: 65002", "10.0.1.1", Verdict::Accept),
    ] {
        let text = format!(
            "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{asNumber: 65000, nodeToNodeMeshEnabled: false, transit: true}}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {{name: pods}}
spec: {{subnets: [{{ipv4: 10.244.0.0/16}}]}}
---
apiVersion: v1
kind: Node
metadata: {{name: r1}}
status: {{addresses: [{{type: InternalIP, address: 10.0.0.1}}]}}
---
apiVersion: v1
kind: Node
metadata: {{name: n2}}
status: {{addresses: [{{type: InternalIP, address: 10.0.0.2}}]}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: p}}
spec: {{peerIP: {address}, {peer_as}}}
"
        );
        let resolved = resolved(&text, "r1", &[], &[]);
        let session = peer(&resolved, "p");
        let seen = ["10.244.7.0/26", "192.0.2.0/24"].map(|prefix| taken(session, prefix));
        assert_eq!(seen, [Verdict::Accept, elsewhere], "{peer_as} {address}");
    }
}

#[test]
fn a_policy_is_asked_for_in_each_direction_and_family() {
    let case = |peer| Case {
        configuration: "",
        node: false,
        peer,
        filters: BOTH_WAYS,
    };
    let both = case("asNumber: 65001, filters: [f]").resolved();
    assert_eq!(
        both.findings[0].to_string(),
        "BGPPeer p: spec.filters: nothing is taken in ipv6-unicast, nothing is told in \
         ipv6-unicast: no filter has a rule for it, and neither transit nor a Node object gives a \
         default policy (RFC 8212) (NoPolicy)"
    );
    let session = peer(&both, "p");
    assert_eq!(taken(session, "10.244.1.0/26"), Verdict::Accept);
    // There is no default to fall back to.
    assert_eq!(taken(session, "10.246.1.0/26"), Verdict::Reject);
    assert_eq!(taken(session, "fd00::/64"), Verdict::Reject);
    assert_eq!(told(session, "10.245.1.0/26").0, Verdict::Accept);
    let none = PathAttributes::default();
    let facts = RouteFacts::own(&none, PeerKind::External);
    let explained = session
        .export
        .explain(&prefix("fd00::/64"), &facts)
        .to_string();
    assert!(
        explained.ends_with("rejected by 'no policy is configured (RFC 8212)'"),
        "{explained}"
    );

    let v4 = case("asNumber: 65001, filters: [f], families: [ipv4-unicast]").resolved();
    assert_eq!(v4.findings, []);
    for (fields, absent) in [
        ("asNumber: 65001", [true, true]),
        ("asNumber: 65001, filters: [f]", [false, true]),
    ] {
        let resolved = case(fields).resolved();
        let import = &peer(&resolved, "p").import;
        let found = Family::ALL.map(|it| import.is_not_configured(it));
        assert_eq!(found, absent, "{fields}");
    }
}

#[test]
fn filters_come_in_order_and_then_the_default() {
    let filters = format!(
        "{BOTH_WAYS}---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {{name: deny}}
spec: {{importV4: [{{cidr: 10.244.0.0/16, matchOperator: In, action: Reject}}]}}
"
    );
    let text: &'static str = filters.leak();
    let verdict = |peer_spec| {
        let case = Case {
            configuration: "",
            node: true,
            peer: peer_spec,
            filters: text,
        };
        let resolved = case.resolved();
        assert_eq!(resolved.findings, []);
        let session = peer(&resolved, "p").clone();
        (
            taken(&session, "10.244.1.0/26"),
            taken(&session, "192.0.2.0/24"),
        )
    };
    let (accept, reject) = (Verdict::Accept, Verdict::Reject);
    assert_eq!(
        verdict("asNumber: 65001, filters: [f, deny]"),
        (accept, accept)
    );
    assert_eq!(
        verdict("asNumber: 65001, filters: [deny, f]"),
        (reject, accept)
    );
}

#[test]
fn nothing_passes_where_a_filter_is_missing() {
    let resolved = Case {
        configuration: ", transit: true",
        node: false,
        peer: "asNumber: 65001, filters: [f, gone]",
        filters: BOTH_WAYS,
    }
    .resolved();
    let expected = (
        "BGPPeer p".to_owned(),
        "spec.filters[1]",
        reasons::MISSING_FILTER,
    );
    assert_eq!(reasons_of(&resolved), [expected]);
    let session = peer(&resolved, "p");
    assert_eq!(taken(session, "10.244.1.0/26"), Verdict::Accept);
    assert_eq!(taken(session, "192.0.2.0/24"), Verdict::Reject);
    assert_eq!(
        told(session, "192.0.2.0/24"),
        (Verdict::Reject, Verdict::Reject)
    );
}

#[test]
fn nothing_passes_a_rule_that_cannot_be_read() {
    let rules = [
        ("{asPathRegex: '(65001', action: Reject}", "asPathRegex"),
        (
            "{communities: {anyOf: ['65000:9999999999:1']}, action: Reject}",
            "communities.anyOf",
        ),
        (
            "{action: Accept, operations: [{removeMED: {}}, {addCommunity: {value: 'rt:10.0.0.1:65536'}}]}",
            "operations[1].addCommunity",
        ),
        (
            "{action: Accept, operations: [{setCommunities: {extended: ['rt:1.2.3:4']}}]}",
            "operations[0].setCommunities.extended",
        ),
    ];
    for (rule, field) in rules {
        let filter = format!(
            "---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {{name: f}}
spec:
  importV4:
  - {{cidr: 10.1.0.0/16, matchOperator: Equal, action: Accept}}
  - {rule}
  - {{action: Accept}}
"
        );
        let resolved = Case {
            configuration: ", transit: true",
            node: false,
            peer: "asNumber: 65001, filters: [f]",
            filters: filter.leak(),
        }
        .resolved();
        let found = &resolved.findings[0];
        assert_eq!(found.object.to_string(), "BGPFilter f");
        assert_eq!(found.field, format!("spec.importV4[1].{field}"));
        assert_eq!(found.reason, reasons::INVALID_SPEC);
        assert_eq!(resolved.findings.len(), 1, "{:?}", resolved.findings);
        let session = peer(&resolved, "p");
        assert_eq!(taken(session, "10.1.0.0/16"), Verdict::Accept, "{rule}");
        assert_eq!(taken(session, "10.2.0.0/16"), Verdict::Reject, "{rule}");
        assert_eq!(taken(session, "fd00::/64"), Verdict::Accept, "{rule}");
    }
}

#[test]
fn rules_are_called_by_filter_and_name_or_place() {
    let filter = "---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: f}
spec: {importV4: [{name: mine, action: Continue}, {action: Continue}]}
";
    let resolved = Case {
        configuration: ", transit: true",
        node: false,
        peer: "asNumber: 65001, filters: [f]",
        filters: filter,
    }
    .resolved();
    let rules = peer(&resolved, "p").import.rules();
    let names: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
    assert_eq!(names, ["f: mine", "f: importV4[1]"]);
}

#[test]
fn graceful_shutdown_is_honored_unless_told_otherwise() {
    let marked = PathAttributes {
        communities: vec![Community::GRACEFUL_SHUTDOWN].into(),
        ..PathAttributes::default()
    };
    let preference = |configuration, peer_spec| {
        let case = Case {
            configuration,
            node: false,
            peer: peer_spec,
            filters: "",
        };
        let resolved = case.resolved();
        let policy = Arc::clone(&peer(&resolved, "p").import);
        let facts = RouteFacts::own(&marked, PeerKind::External);
        let decision = policy.evaluate(&prefix("10.0.0.0/8"), &facts);
        let applied = policy.apply(&decision, marked.clone(), &ApplyContext::default());
        applied.attributes.local_pref
    };
    assert_eq!(preference(", transit: true", "asNumber: 65001"), Some(0));
    assert_eq!(preference("", "asNumber: 65000"), Some(0));
    let ignoring = ", transit: true, gracefulShutdown: {honor: false}";
    assert_eq!(preference(ignoring, "asNumber: 65001"), None);
}

#[test]
fn draining_marks_what_is_told_and_lowers_what_is_taken() {
    let changed = |configuration, peer_spec| {
        let case = Case {
            configuration,
            node: false,
            peer: peer_spec,
            filters: "",
        };
        let resolved = case.resolved();
        let session = peer(&resolved, "p").clone();
        assert!(session.draining.is_some());
        let none = PathAttributes::default();
        let facts = RouteFacts::own(&none, PeerKind::External);
        [&session.import, &session.export].map(|policy| {
            let decision = policy.evaluate(&prefix("10.0.0.0/8"), &facts);
            let applied = policy.apply(&decision, none.clone(), &ApplyContext::default());
            (
                applied.attributes.local_pref,
                applied.attributes.communities.to_vec(),
            )
        })
    };
    let marked = vec![Community::GRACEFUL_SHUTDOWN];
    // One session: its routes are avoided in both directions.
    assert_eq!(
        changed(", transit: true", "asNumber: 65001, drain: true"),
        [(Some(0), vec![]), (None, marked.clone())]
    );
    // The whole speaker: it has no other way itself.
    assert_eq!(
        changed(", gracefulShutdown: {drain: true}", "asNumber: 65000"),
        [(None, vec![]), (Some(0), marked)]
    );
}

#[test]
fn equal_sessions_share_one_policy() {
    let text = "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {transit: true, nodeToNodeMeshEnabled: false}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: a}
spec: {peerIP: 10.0.1.1, asNumber: 65001}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: b}
spec: {peerIP: 10.0.1.2, asNumber: 65002}
";
    let resolved = resolved(text, "r1", &[], &[]);
    let (a, b) = (peer(&resolved, "a"), peer(&resolved, "b"));
    assert!(Arc::ptr_eq(&a.import, &b.import) && Arc::ptr_eq(&a.export, &b.export));
}
