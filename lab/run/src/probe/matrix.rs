//! The reachability matrix: every cell asked once, all cells of a source at the same time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use caracal_lab_topology::{Cell, Family, Protocol, Want};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::echo::Answer;
use crate::namespace::Namespace;

/// How long silence must last to count as refusal. On one machine an answer takes milliseconds; a lost SYN
/// would be sent again after one second, so this also shows that nothing had to be repeated.
const PATIENCE: Duration = Duration::from_millis(900);

/// Open sockets of one source at a time, well below the usual limit on files.
const CONCURRENCY: usize = 200;

/// Where a party's probes start and what answers to expect of it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The namespace it lives in.
    pub namespace: Namespace,
    /// Its address in each family.
    pub addresses: [IpAddr; 2],
}

impl Endpoint {
    /// Its address in one family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.addresses[0],
            Family::V6 => self.addresses[1],
        }
    }
}

/// What came of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The right server answered and saw the right source.
    Reached,
    /// Nobody answered in time.
    Refused,
    /// Somebody answered, but not as it should be.
    Wrong(String),
}

/// A cell that did not give what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The cell.
    pub cell: Cell,
    /// What it had to give.
    pub want: Want,
    /// What it gave.
    pub got: Outcome,
}

/// Asks every cell and returns those that did not answer as wanted.
///
/// # Errors
/// A source's namespace cannot be entered.
pub fn run(
    cells: &[(Cell, Want)],
    endpoints: &BTreeMap<String, Endpoint>,
) -> anyhow::Result<Vec<Mismatch>> {
    let mut by_source: BTreeMap<&str, Vec<&(Cell, Want)>> = BTreeMap::new();
    for cell in cells {
        by_source.entry(&cell.0.from).or_default().push(cell);
    }
    let mut mismatches = Vec::new();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let workers: Vec<_> = by_source
            .iter()
            .map(|(&source, cells)| {
                scope.spawn(move || {
                    let from = &endpoints[source];
                    from.namespace
                        .run(|| ask_all(from, cells, endpoints))
                        .with_context(|| format!("cannot probe from {source}"))
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(found) => mismatches.extend(found?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    Ok(mismatches)
}

fn ask_all(
    from: &Endpoint,
    cells: &[&(Cell, Want)],
    endpoints: &BTreeMap<String, Endpoint>,
) -> anyhow::Result<Vec<Mismatch>> {
    use futures::StreamExt;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mismatches = runtime.block_on(async {
        futures::stream::iter(cells)
            .map(|(cell, want)| async move {
                let to = endpoints[&cell.to].address(cell.family);
                let got = ask(cell, from.address(cell.family), to).await;
                let agrees = matches!(
                    (want, &got),
                    (Want::Reached, Outcome::Reached) | (Want::Refused, Outcome::Refused)
                );
                (!agrees).then(|| Mismatch {
                    cell: cell.clone(),
                    want: *want,
                    got,
                })
            })
            .buffer_unordered(CONCURRENCY)
            .filter_map(|mismatch| async { mismatch })
            .collect()
            .await
    });
    Ok(mismatches)
}

async fn ask(cell: &Cell, from: IpAddr, to: IpAddr) -> Outcome {
    let target = SocketAddr::new(to, cell.probe.port);
    let answer = match cell.probe.protocol {
        Protocol::Tcp => tokio::time::timeout(PATIENCE, ask_tcp(target)).await,
        Protocol::Udp => tokio::time::timeout(PATIENCE, ask_udp(target)).await,
    };
    match answer {
        Err(_) => Outcome::Refused,
        Ok(Err(error)) => Outcome::Wrong(error.to_string()),
        Ok(Ok(text)) => match Answer::parse(&text) {
            Some(answer)
                if answer
                    == (Answer {
                        server: to,
                        seen: from,
                    }) =>
            {
                Outcome::Reached
            }
            Some(answer) => Outcome::Wrong(format!(
                "{} answered and saw {} instead of {from}",
                answer.server, answer.seen
            )),
            None => Outcome::Wrong(format!(
                "not an answer: {:?}",
                String::from_utf8_lossy(&text)
            )),
        },
    }
}

async fn ask_tcp(target: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(target).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    Ok(text)
}

async fn ask_udp(target: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if target.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    socket.send(b"?").await?;
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).await?;
    Ok(buffer[..length].to_vec())
}
