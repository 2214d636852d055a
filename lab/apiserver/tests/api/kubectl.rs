//! I. Stock kubectl.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use caracal_apiserver::{ApiServer, Options};

/// A kubectl with its own home and kubeconfig.
struct Kubectl {
    home: tempfile::TempDir,
    _server: ApiServer,
}

const CRD: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is wanted of a widget.
            properties:
              size: {type: integer, minimum: 1, description: Size in bytes.}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;
const WIDGET: &str =
    "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 4}\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: x}}\n\
                   spec: {containers: [{name: c, image: 'nginx:1', ports: [{containerPort: 80}]}]}\n";

impl Kubectl {
    async fn new() -> Option<Self> {
        if Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .is_err()
        {
            caracal_skip::missing!("kubectl is not installed");
            return None;
        }
        let server = ApiServer::start(Options::loopback())
            .await
            .expect("start on the loopback");
        let home = tempfile::tempdir().expect("make a temporary directory");
        std::fs::write(home.path().join("config"), server.kubeconfig()).expect("write kubeconfig");
        Some(Self {
            home,
            _server: server,
        })
    }

    fn raw(&self, arguments: &[&str], input: &str, extra: &[(&str, &str)]) -> Output {
        let mut command = Command::new("timeout");
        command
            .arg("20")
            .arg("kubectl")
            .args(arguments)
            .envs(extra.iter().copied());
        command
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("start kubectl");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(input.as_bytes()).expect("write to kubectl");
        drop(stdin);
        child.wait_with_output().expect("wait for kubectl")
    }

    /// Runs a command line that has to succeed; returns its output.
    #[track_caller]
    fn run(&self, line: &str, input: &str) -> String {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = self.raw(&arguments, input, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kubectl {line}: {}\n{text}{errors}",
            output.status
        );
        text
    }

    #[track_caller]
    fn shows(&self, line: &str, input: &str, wanted: &[&str]) {
        let text = self.run(line, input);
        for part in wanted {
            assert!(
                text.contains(part),
                "kubectl {line}: no {part:?} in\n{text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_discovers_and_explains() {
    let Some(kubectl) = Kubectl::new().await else {
        return;
    };
    kubectl.shows("version", "", &["Server Version: v1."]);
    kubectl.run("create -f -", CRD);
    kubectl.run(
        "wait --for=condition=Established crd/widgets.example.com --timeout=5s",
        "",
    );
    kubectl.shows("api-resources", "", &["pods", "widgets", "networkpolicies"]);
    kubectl.shows(
        "api-versions",
        "",
        &["v1", "example.com/v1", "coordination.k8s.io/v1"],
    );
    kubectl.shows(
        "explain widget.spec",
        "",
        &["What is wanted of a widget.", "size"],
    );
    kubectl.shows(
        "explain pod.spec.containers",
        "",
        &["image", "Container image name"],
    );
    kubectl.shows("auth can-i create pods", "", &["yes"]);
    kubectl.run("create configmap c --from-literal=a=b", "");
    kubectl.shows("get configmap c -o json", "", &["\"a\": \"b\""]);
    kubectl.run("create secret generic s --from-literal=a=b", "");
    kubectl.shows("get secret s -o json", "", &["\"a\": \"Yg==\"", "Opaque"]);
    kubectl.shows("get events", "", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_diffs_patches_and_edits() {
    let Some(kubectl) = Kubectl::new().await else {
        return;
    };
    kubectl.run("create -f -", CRD);
    kubectl.run(
        "wait --for=condition=Established crd/widgets.example.com --timeout=5s",
        "",
    );
    for (manifest, changed, object) in [
        (POD, POD.replace("app: x", "app: z"), "pod/p"),
        (WIDGET, WIDGET.replace("size: 4", "size: 5"), "widget/w"),
    ] {
        kubectl.shows("apply -f -", manifest, &["created"]);
        kubectl.shows("apply -f -", manifest, &["unchanged"]);
        assert_eq!(kubectl.run("diff -f -", manifest), "");
        let diff = kubectl.raw(&["diff", "-f", "-"], &changed, &[]);
        assert_eq!(
            diff.status.code(),
            Some(1),
            "{}",
            String::from_utf8_lossy(&diff.stderr)
        );
        kubectl.shows("apply -f -", &changed, &["configured"]);
        kubectl.shows(
            "apply --server-side -f -",
            &changed,
            &["serverside-applied"],
        );
        kubectl.run("apply --server-side --force-conflicts -f -", manifest);
        kubectl.run(&format!("label {object} extra=1"), "");
        kubectl.run(&format!("annotate {object} note=2"), "");
        let merge = r#"{"metadata":{"labels":{"merged":"y"}}}"#;
        kubectl.run(&format!("patch {object} --type=merge -p {merge}"), "");
        let json = r#"[{"op":"add","path":"/metadata/labels/json","value":"y"}]"#;
        kubectl.run(&format!("patch {object} --type=json -p {json}"), "");
        let edit = ["edit", object];
        let editor = [("KUBE_EDITOR", "sed -i s/extra:/edited:/")];
        let edited = kubectl.raw(&edit, "", &editor);
        assert!(
            edited.status.success(),
            "{}",
            String::from_utf8_lossy(&edited.stderr)
        );
        kubectl.shows(
            &format!("get {object} -o yaml"),
            "",
            &[
                "edited: \"1\"",
                "merged: \"y\"",
                "json: \"y\"",
                "note: \"2\"",
            ],
        );
    }
    let strategic = r#"{"spec":{"containers":[{"name":"c","image":"nginx:2"}]}}"#;
    kubectl.run(&format!("patch pod p -p {strategic}"), "");
    kubectl.shows(
        "get pod p -o json",
        "",
        &["\"image\": \"nginx:2\"", "\"containerPort\": 80"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_gets_describes_waits_and_deletes() {
    let Some(kubectl) = Kubectl::new().await else {
        return;
    };
    kubectl.run("create -f -", CRD);
    kubectl.run(
        "wait --for=condition=Established crd/widgets.example.com --timeout=5s",
        "",
    );
    kubectl.run("create -f -", WIDGET);
    kubectl.run("create -f -", POD);
    kubectl.shows("get wd", "", &["NAME   SIZE", "w      4"]);
    kubectl.shows(
        "get pods -o wide",
        "",
        &["READY", "NODE", "p ", "0/1", "Pending"],
    );
    kubectl.shows(
        "get pods,widgets -A",
        "",
        &["pod/p", "widget.example.com/w"],
    );
    kubectl.shows("describe pod p", "", &["nginx:1", "app=x"]);
    kubectl.shows("describe wd w", "", &["Size:  4"]);
    let watched = kubectl.raw(&["get", "pods", "-w", "--request-timeout=2s"], "", &[]);
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(text.contains("NAME") && text.contains("Pending"), "{text}");
    kubectl.run("wait --for=jsonpath={.spec.size}=4 wd/w --timeout=5s", "");
    let status = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl.run(
        &format!("patch pod p --subresource=status --type=merge -p {status}"),
        "",
    );
    kubectl.run("wait --for=condition=Ready pod/p --timeout=5s", "");
    kubectl.shows("delete pod p --wait", "", &["deleted"]);
    kubectl.run("wait --for=delete pod/p --timeout=5s", "");
    kubectl.run(
        "create -f -",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: gone}\n",
    );
    kubectl.run("delete namespace gone --wait", "");
    kubectl.run("delete crd widgets.example.com --wait", "");
}
