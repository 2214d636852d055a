//! UDP probes and a server that answers them, inside namespaces.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use caracal_fib::netns::NamedNetns;

const PORT: u16 = 7;

/// Pause between two rounds of probes.
const PACE: Duration = Duration::from_millis(2);

fn socket(namespace: &NamedNetns, local: &str, port: u16) -> UdpSocket {
    let bound = namespace.netns().run(|| UdpSocket::bind((local, port)));
    let socket = bound.expect("namespace").expect("socket");
    socket.set_read_timeout(Some(PACE)).expect("timeout");
    socket
}

/// Sends back whatever it gets, until it is dropped.
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Listens on all addresses, present and future.
    pub fn start(namespace: &NamedNetns) -> EchoServer {
        let socket = socket(namespace, "0.0.0.0", PORT);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // Who asked may be out of reach by now; that is what is measured.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        EchoServer {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Counters {
    stop: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    /// Probes sent since the last answer.
    silent: AtomicU64,
}

/// Asks every target again and again from one socket, hence as one flow each.
pub struct Probe {
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

impl Probe {
    pub fn start(namespace: &NamedNetns, targets: &[String]) -> Probe {
        let socket = socket(namespace, "0.0.0.0", 0);
        let targets: HashMap<SocketAddr, ()> = targets
            .iter()
            .map(|target| {
                (
                    SocketAddr::new(target.parse::<IpAddr>().expect("address"), PORT),
                    (),
                )
            })
            .collect();
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !shared.stop.load(Ordering::Relaxed) {
                for target in targets.keys() {
                    // Unreachable for now is what most of them are.
                    let _ = socket.send_to(b"probe", target);
                    shared.sent.fetch_add(1, Ordering::Relaxed);
                    shared.silent.fetch_add(1, Ordering::Relaxed);
                }
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    if targets.contains_key(&from) {
                        shared.answered.fetch_add(1, Ordering::Relaxed);
                        shared.silent.store(0, Ordering::Relaxed);
                    }
                }
            }
        });
        Probe { counters, thread }
    }

    pub fn sent(&self) -> u64 {
        self.counters.sent.load(Ordering::Relaxed)
    }

    pub fn answered(&self) -> u64 {
        self.counters.answered.load(Ordering::Relaxed)
    }

    pub fn sent_at_least(&self, number: u64) -> Result<(), u64> {
        if self.sent() >= number {
            Ok(())
        } else {
            Err(self.sent())
        }
    }

    pub fn answered_at_least(&self, number: u64) -> Result<(), u64> {
        if self.answered() >= number {
            Ok(())
        } else {
            Err(self.answered())
        }
    }

    /// Whether that many probes in a row were not answered.
    pub fn silent_for(&self, number: u64) -> Result<(), u64> {
        let silent = self.counters.silent.load(Ordering::Relaxed);
        if silent >= number {
            Ok(())
        } else {
            Err(silent)
        }
    }

    /// Ends it; how many answers there were.
    pub fn stop(self) -> u64 {
        self.counters.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the probe ends well");
        self.counters.answered.load(Ordering::Relaxed)
    }
}
