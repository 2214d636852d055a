//! The layering: which crate may know which, and that the pure crates are pure.
//!
//! A pure crate has no runtime, socket, clock, randomness, thread, file, environment or global state, so
//! that the same code runs in the agent, in tests, in fuzzers and in simulations. Its manifest says
//! `purity = "pure"`; this test holds it to that, by its dependencies and by its sources.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use syn::visit::Visit;

/// Crates that bring a runtime, a clock, sockets or randomness.
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "rand",
    "getrandom",
    "kube",
    "kube-client",
    "rtnetlink",
    "netlink-sys",
];

/// Who must not know whom, directly or through others, with the reason.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "caracal-bgp-speaker",
        &[
            "kube",
            "kube-client",
            "k8s-openapi",
            "caracal-crds",
            "caracal-fib",
            "caracal-resolve",
        ],
        "the speaker runs where there is no Kubernetes, and writes routes through a trait",
    ),
    (
        "caracal-bfdd",
        &[
            "kube",
            "kube-client",
            "k8s-openapi",
            "caracal-crds",
            "caracal-bgp-speaker",
            "caracal-agent",
        ],
        "sessions outlive whoever asked for them, so they share nothing with it",
    ),
    (
        "caracal-crds",
        &[
            "caracal-bgp-core",
            "caracal-bgp-speaker",
            "caracal-ipam-core",
            "caracal-policy",
        ],
        "resource types are shared by everybody and depend on nobody",
    ),
    (
        "caracal-fib",
        &["kube", "k8s-openapi", "caracal-crds", "caracal-agent"],
        "kernel routes do not know where they come from",
    ),
    (
        "caracal-nft",
        &["kube", "k8s-openapi", "caracal-crds", "caracal-agent"],
        "rules do not know where they come from",
    ),
    (
        "caracal-metrics",
        &["kube", "k8s-openapi", "caracal-bgp-core", "caracal-crds"],
        "whoever has something to count can use it, the speaker among them",
    ),
    (
        "caracal-cni",
        &["tokio", "kube", "k8s-openapi", "caracal-agent"],
        "the plugin is small and static, and only speaks to the agent",
    ),
    (
        "caracal-agent",
        &[
            "caracal-lab",
            "caracal-lab-topology",
            "caracal-ipam-controller",
            "caracal-apiserver",
        ],
        "the product does not know the lab",
    ),
    (
        "caracal-ipam-controller",
        &[
            "caracal-agent",
            "caracal-bgp-speaker",
            "caracal-lab",
            "caracal-apiserver",
        ],
        "the controller grants blocks and knows nothing of nodes' insides",
    ),
    (
        "caracal-apiserver",
        &[
            "caracal-crds",
            "caracal-agent",
            "caracal-lab",
            "kube-client",
        ],
        "the API server serves any group",
    ),
];

#[test]
fn dependencies_point_one_way() {
    let graph = Graph::read();
    let mut broken = Vec::new();
    for (name, forbidden, why) in FORBIDDEN {
        let reached = graph.reach(name);
        for other in *forbidden {
            if reached.contains(*other) {
                broken.push(format!("{name} depends on {other}: {why}"));
            }
        }
    }
    for name in graph
        .members
        .keys()
        .filter(|name| name.as_str() != "caracal")
    {
        if graph.reach(name).contains("caracal") {
            broken.push(format!("{name} depends on the root package"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Its client has a runtime; the process must do without, whatever else is built with it.
#[test]
fn the_bfd_process_has_no_runtime() {
    let tree = |features: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--package", "caracal-bfdd", "--edges", "normal"])
            .args(["--locked", "--prefix", "none", "--format", "{p}"])
            .args(features)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let has_tokio = |tree: &str| tree.lines().any(|line| line.starts_with("tokio "));
    let process = tree(&[]);
    assert!(!has_tokio(&process), "{process}");
    assert!(
        has_tokio(&tree(&["--features", "client"])),
        "the search is broken"
    );
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    let graph = Graph::read();
    let mut broken = Vec::new();
    for name in graph.pure() {
        let reached = graph.reach(&name);
        for other in IMPURE {
            if reached.contains(*other) {
                broken.push(format!("{name} reaches {other}"));
            }
        }
        for shell in graph
            .members
            .keys()
            .filter(|member| reached.contains(member.as_str()))
        {
            if !graph.members[shell].pure {
                broken.push(format!("{name} reaches {shell}, which is a shell"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_expected_crates_are_pure() {
    let pure = Graph::read().pure();
    for name in [
        "caracal-bgp-core",
        "caracal-ipam-core",
        "caracal-lab-topology",
        "caracal-policy",
    ] {
        assert!(
            pure.contains(name),
            "{name} must say purity = \"pure\" in its manifest"
        );
    }
}

#[test]
fn sources_of_pure_crates_hold_no_clock_socket_thread_file_environment_async_or_static() {
    let graph = Graph::read();
    let mut found = Vec::new();
    let mut files = 0;
    for name in graph.pure() {
        for file in rust_files(&graph.members[&name].folder.join("src")) {
            files += 1;
            let text = std::fs::read_to_string(&file).unwrap();
            for impurity in impurities(&text) {
                found.push(format!("{}: {impurity}", file.display()));
            }
        }
    }
    assert!(
        files > 20,
        "only {files} files were read: the search is broken"
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_dirty_source_is_found_out_in_every_way() {
    let text = include_str!("fixtures/dirty.rs");
    let found = impurities(text).join("\n");
    for kind in [
        "Instant::now",
        "SystemTime::now",
        "std::net::TcpStream",
        "std::thread",
        "std::fs",
        "std::env",
        "std::process",
        "async function",
        "async block",
        "static COUNTER",
        "thread_local",
    ] {
        assert!(found.contains(kind), "{kind} was not found in:\n{found}");
    }
    assert!(
        !found.contains("in_tests"),
        "code under #[cfg(test)] may do as it likes:\n{found}"
    );
}

struct Member {
    folder: PathBuf,
    pure: bool,
}

struct Graph {
    members: BTreeMap<String, Member>,
    /// Package id to name and normal dependencies' ids.
    nodes: BTreeMap<String, (String, Vec<String>)>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let own: BTreeSet<String> = list(&metadata["workspace_members"])
            .iter()
            .map(text)
            .collect();
        let mut names = BTreeMap::new();
        let mut members = BTreeMap::new();
        for package in list(&metadata["packages"]) {
            let (id, name) = (text(&package["id"]), text(&package["name"]));
            if own.contains(&id) {
                let manifest = PathBuf::from(text(&package["manifest_path"]));
                let pure = package["metadata"]["layer"]["purity"] == "pure";
                let folder = manifest.parent().unwrap().to_owned();
                members.insert(name.clone(), Member { folder, pure });
            }
            names.insert(id, name);
        }
        let mut nodes = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let id = text(&node["id"]);
            // A dependency without a kind is a normal one; build and dev dependencies do not ship.
            let dependencies = list(&node["deps"])
                .iter()
                .filter(|dep| {
                    list(&dep["dep_kinds"])
                        .iter()
                        .any(|kind| kind["kind"].is_null())
                })
                .map(|dep| text(&dep["pkg"]))
                .collect();
            nodes.insert(id.clone(), (names[&id].clone(), dependencies));
        }
        Self { members, nodes }
    }

    fn pure(&self) -> BTreeSet<String> {
        self.members
            .iter()
            .filter(|(_, m)| m.pure)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Names of everything that a package depends on, itself left out.
    fn reach(&self, name: &str) -> BTreeSet<&str> {
        let start = self.nodes.iter().find(|(_, (n, _))| n == name);
        let (start, _) = start.unwrap_or_else(|| panic!("there is no package {name}"));
        let mut seen = BTreeSet::new();
        let mut queue = vec![start];
        while let Some(id) = queue.pop() {
            for dependency in &self.nodes[id].1 {
                if seen.insert(dependency) {
                    queue.push(dependency);
                }
            }
        }
        seen.iter().map(|id| self.nodes[*id].0.as_str()).collect()
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test_file(&path) {
            files.push(path);
        }
    }
    files
}

/// Files that are only ever modules under `#[cfg(test)]`.
fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs")
    })
}

fn impurities(source: &str) -> Vec<String> {
    let file = syn::parse_file(source).unwrap();
    let mut visitor = Impurities::default();
    visitor.visit_file(&file);
    visitor.found
}

#[derive(Default)]
struct Impurities {
    found: Vec<String>,
}

/// Path endings and beginnings that give a pure crate away.
const IMPURE_ENDINGS: &[&str] = &["Instant::now", "SystemTime::now"];
const IMPURE_BEGINNINGS: &[&str] = &[
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::io::stdin",
    "std::io::stdout",
];

impl Impurities {
    fn judge(&mut self, path: &str) {
        let hit = IMPURE_ENDINGS.iter().any(|end| path.ends_with(end))
            || IMPURE_BEGINNINGS
                .iter()
                .any(|begin| path == *begin || path.starts_with(&format!("{begin}::")));
        if hit {
            self.found.push(path.to_owned());
        }
    }

    fn judge_use(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &syn::Ident| {
            if prefix.is_empty() {
                name.to_string()
            } else {
                format!("{prefix}::{name}")
            }
        };
        match tree {
            syn::UseTree::Path(path) => self.judge_use(&join(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.judge(&join(&name.ident)),
            syn::UseTree::Rename(rename) => self.judge(&join(&rename.ident)),
            syn::UseTree::Glob(_) => self.judge(prefix),
            syn::UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|item| self.judge_use(prefix, item));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Impurities {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = module.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Ident>()
                    .is_ok_and(|ident| ident == "test")
        });
        if !is_test {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.judge_use("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.judge(&segments.join("::"));
        syn::visit::visit_path(self, path);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.found
                .push(format!("async function {}", signature.ident));
        }
        syn::visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, expression: &'ast syn::ExprAsync) {
        self.found.push("async block".to_owned());
        syn::visit::visit_expr_async(self, expression);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.found.push(format!("static {}", item.ident));
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if item.path.is_ident("thread_local") {
            self.found.push("thread_local".to_owned());
        }
    }
}
