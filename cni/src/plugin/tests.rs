use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use super::*;
use crate::protocol::{AttachmentKey, PROTOCOL, Reply, Request, read_frame, write_frame};
use crate::result::{AddResult, IpConfig};

fn environment(command: &str) -> Environment {
    Environment {
        command: command.into(),
        container_id: "c1".into(),
        netns: "/run/netns/c1".into(),
        interface: "eth0".into(),
        args: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1".into(),
    }
}

fn configuration(version: &str, socket: &Path, more: &str) -> Vec<u8> {
    let socket = socket.display();
    format!(r#"{{"cniVersion":"{version}","name":"n","type":"caracal","socket":"{socket}"{more}}}"#)
        .into_bytes()
}

/// Answers each of `outcomes` on its own connection and gives back the requests seen.
fn agent(socket: &Path, outcomes: Vec<Outcome>) -> thread::JoinHandle<Vec<Request>> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        outcomes
            .into_iter()
            .map(|outcome| {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read_frame(&mut stream).unwrap();
                write_frame(&mut stream, &Reply::new(outcome)).unwrap();
                request
            })
            .collect()
    })
}

fn socket() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cni.sock");
    (directory, path)
}

fn code(exit: &Exit) -> u64 {
    let value: Value = serde_json::from_str(&exit.stdout).expect(&exit.stdout);
    assert_eq!(exit.status, 1, "{}", exit.stdout);
    value["code"].as_u64().unwrap()
}

#[test]
fn version_needs_no_agent_and_no_configuration() {
    for stdin in ["", "{}", r#"{"cniVersion":"0.4.0"}"#] {
        let exit = run(
            &Environment {
                command: "VERSION".into(),
                ..Default::default()
            },
            stdin.as_bytes(),
        );
        let value: Value = serde_json::from_str(&exit.stdout).unwrap();
        assert_eq!(
            value["supportedVersions"],
            json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
        assert_eq!(exit.status, 0);
    }
}

#[test]
fn add_passes_the_pod_on_and_prints_the_format_asked_for() {
    let (_directory, socket) = socket();
    let result = AddResult {
        ips: vec![IpConfig {
            address: "10.0.0.1/32".into(),
            gateway: None,
            interface: None,
        }],
        ..Default::default()
    };
    let agent = agent(&socket, vec![Outcome::Added(result)]);
    let exit = run(&environment("ADD"), &configuration("0.4.0", &socket, ""));
    let value: Value = serde_json::from_str(&exit.stdout).unwrap();
    assert_eq!((exit.status, &value["ips"][0]["version"]), (0, &json!("4")));
    let requests = agent.join().unwrap();
    let Call::Add { attachment } = &requests[0].call else {
        panic!("{requests:?}")
    };
    assert_eq!(requests[0].protocol, PROTOCOL);
    assert_eq!(attachment.pod.as_ref().unwrap().uid.as_deref(), Some("u1"));
    assert_eq!(
        attachment.netns.as_deref(),
        Some(Path::new("/run/netns/c1"))
    );
}

#[test]
fn refusals_of_the_agent_come_out_with_their_code() {
    let (_directory, socket) = socket();
    let refusal = CniError::new(ErrorCode::TryAgainLater, "no free address");
    let agent = agent(&socket, vec![Outcome::Failed(refusal)]);
    assert_eq!(
        code(&run(
            &environment("ADD"),
            &configuration("1.1.0", &socket, "")
        )),
        11
    );
    agent.join().unwrap();
}

#[test]
fn what_is_wrong_with_the_call_is_told_by_its_code() {
    let (_directory, socket) = socket();
    let good = configuration("1.1.0", &socket, "");
    let nameless = Environment {
        container_id: String::new(),
        ..environment("ADD")
    };
    let homeless = Environment {
        netns: String::new(),
        ..environment("ADD")
    };
    for (environment, stdin, expected) in [
        (environment("ADD"), configuration("0.2.0", &socket, ""), 1),
        (environment("ADD"), b"not json".to_vec(), 6),
        (environment("FROB"), good.clone(), 4),
        (nameless, good.clone(), 4),
        (homeless, good.clone(), 4),
        (environment("CHECK"), good.clone(), 7),
        (environment("GC"), good, 7),
    ] {
        assert_eq!(
            code(&run(&environment, &stdin)),
            expected,
            "{environment:?}"
        );
    }
}

#[test]
fn an_agent_that_appears_late_is_still_asked() {
    let (_directory, socket) = socket();
    let late = socket.clone();
    let agent = thread::spawn(move || {
        // Longer than several retries, far shorter than the patience.
        thread::sleep(Duration::from_millis(300));
        agent(&late, vec![Outcome::Done]).join().unwrap()
    });
    let stdin = configuration("1.1.0", &socket, r#","prevResult":{}"#);
    let exit = run(&environment("CHECK"), &stdin);
    assert_eq!(
        exit,
        Exit {
            stdout: String::new(),
            status: 0
        }
    );
    assert_eq!(agent.join().unwrap().len(), 1);
}

#[test]
fn an_agent_that_dies_before_its_reply_is_asked_again() {
    let (_directory, socket) = socket();
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        let request: Request = read_frame(&mut stream).unwrap();
        write_frame(&mut stream, &Reply::new(Outcome::Done)).unwrap();
        request
    });
    let exit = run(&environment("DEL"), &configuration("1.1.0", &socket, ""));
    assert_eq!(exit.status, 0, "{}", exit.stdout);
    assert!(matches!(agent.join().unwrap().call, Call::Del { .. }));
}

#[test]
fn del_without_an_agent_leaves_a_tombstone_and_succeeds() {
    let (_directory, socket) = socket();
    let gone = Environment {
        netns: String::new(),
        ..environment("DEL")
    };
    let exit = run(&gone, &configuration("1.1.0", &socket, ""));
    assert_eq!(
        exit,
        Exit {
            stdout: String::new(),
            status: 0
        }
    );
    let found = tombstone::list(&tombstone::directory(&socket)).unwrap();
    let key = AttachmentKey {
        container_id: "c1".into(),
        interface: "eth0".into(),
    };
    assert_eq!(found[0].1.key, key);
}

#[test]
fn status_without_an_agent_is_not_available() {
    let (_directory, socket) = socket();
    assert_eq!(
        code(&run(
            &environment("STATUS"),
            &configuration("1.1.0", &socket, "")
        )),
        50
    );
}

#[test]
fn add_without_an_agent_says_try_again_after_ten_seconds() {
    let (_directory, socket) = socket();
    let started = std::time::Instant::now();
    let exit = run(&environment("ADD"), &configuration("1.1.0", &socket, ""));
    assert_eq!(code(&exit), 11);
    let waited = started.elapsed();
    assert!((9..12).contains(&waited.as_secs()), "{waited:?}");
}
