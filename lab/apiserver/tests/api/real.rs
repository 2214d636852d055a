//! A real kube-apiserver to compare with, if the environment names one.
//!
//! `KUBECONFIG` is reached through `kubectl proxy`, which does TLS and credentials.
//! `KUBEBUILDER_ASSETS` is a directory with `etcd` and `kube-apiserver`, which are started.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::OnceCell;

static REAL: OnceCell<Option<Real>> = OnceCell::const_new();

struct Real {
    url: String,
    _processes: Vec<Running>,
    _directory: Option<tempfile::TempDir>,
}

/// Killed when dropped. Statics are never dropped, so children also watch their parent: see
/// [`spawn`].
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about a failure.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// URL of the real server, started on first use.
pub(crate) async fn url() -> Option<String> {
    let real = REAL.get_or_init(|| async {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // Children are killed with the thread that made them, so that one lives as long as the
        // process.
        std::thread::spawn(move || {
            // The receiver is gone only if the test was ended meanwhile.
            let _ = sender.send(start());
            loop {
                std::thread::park();
            }
        });
        receiver.await.ok().flatten()
    });
    real.await.as_ref().map(|real| real.url.clone())
}

fn start() -> Option<Real> {
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        return Some(start_assets(&PathBuf::from(assets)));
    }
    let kubeconfig = std::env::var_os("KUBECONFIG")?;
    let (proxy, url) = proxy(&[
        "--kubeconfig".into(),
        kubeconfig.to_string_lossy().into_owned(),
    ]);
    Some(Real {
        url,
        _processes: vec![proxy],
        _directory: None,
    })
}

/// Starts a process that ends with the test, however that ends.
fn spawn(command: &mut Command) -> Child {
    let mut wrapped = Command::new("setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    wrapped.spawn().expect("start a process through setpriv")
}

fn proxy(arguments: &[String]) -> (Running, String) {
    let mut child = spawn(
        Command::new("kubectl")
            .args(["proxy", "--port=0"])
            .args(arguments),
    );
    let mut line = String::new();
    let output = child.stdout.take().expect("stdout is piped");
    BufReader::new(output)
        .read_line(&mut line)
        .expect("read the first line of kubectl proxy");
    let address = line
        .trim()
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    (Running(child), format!("http://{address}"))
}

fn start_assets(assets: &Path) -> Real {
    let directory = tempfile::tempdir().expect("make a temporary directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let port = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("a bound address").port()
    };
    let (client_port, peer_port, api_port) = (port(), port(), port());
    let etcd_url = format!("http://127.0.0.1:{client_port}");
    let etcd = spawn(Command::new(assets.join("etcd")).args([
        "--data-dir",
        &path("etcd"),
        "--listen-client-urls",
        &etcd_url,
        "--advertise-client-urls",
        &etcd_url,
        "--listen-peer-urls",
        &format!("http://127.0.0.1:{peer_port}"),
        "--unsafe-no-fsync",
    ]));
    let key = path("sa.key");
    let made = Command::new("openssl")
        .args(["genrsa", "-out", &key, "2048"])
        .output();
    assert!(
        made.is_ok_and(|made| made.status.success()),
        "openssl genrsa"
    );
    std::fs::write(path("tokens"), "secret,admin,admin,system:masters\n").expect("write tokens");
    let api = spawn(Command::new(assets.join("kube-apiserver")).args([
        format!("--etcd-servers={etcd_url}"),
        format!("--secure-port={api_port}"),
        "--bind-address=127.0.0.1".into(),
        format!("--cert-dir={}", path("certs")),
        format!("--token-auth-file={}", path("tokens")),
        "--authorization-mode=RBAC".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-signing-key-file={key}"),
        format!("--service-account-key-file={key}"),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--disable-admission-plugins=ServiceAccount".into(),
    ]));
    let (proxy, url) = proxy(&[
        format!("--server=https://127.0.0.1:{api_port}"),
        "--token=secret".into(),
        "--insecure-skip-tls-verify".into(),
    ]);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let ready = Command::new("kubectl")
            .args(["--server", &url, "get", "--raw", "/readyz"])
            .output()
            .is_ok_and(|output| output.status.success());
        if ready {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "kube-apiserver is not ready after 60 s"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let processes = vec![proxy, Running(api), Running(etcd)];
    Real {
        url,
        _processes: processes,
        _directory: Some(directory),
    }
}
