//! Clients of a local service: each with a task of its own, and no more at a time than there may be.
//!
//! Owns the loop. Does not own what is said to a client, nor the sockets of protocols.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Until the next try where none could be accepted: out of descriptors, others may close theirs
/// meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Where clients come from.
pub trait Listener: Sync {
    /// The way to one of them.
    type Stream: Send + 'static;

    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// Converses with clients, at most `limit` at a time, for as long as it is polled: the conversations
/// end with it, so that no client keeps the process from its end. More clients wait for others to close.
/// `service` is what the log calls it.
pub async fn serve<L, C>(
    listener: &L,
    limit: usize,
    service: &str,
    converse: impl Fn(L::Stream) -> C,
) where
    L: Listener,
    C: Future<Output = ()> + Send + 'static,
{
    let mut clients = JoinSet::new();
    loop {
        if clients.len() >= limit {
            clients.join_next().await;
        }
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok(stream) => {
                clients.spawn(converse(stream));
            }
            Err(error) => {
                tracing::warn!(%error, service, "cannot accept a client");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn one_client_too_many_waits_for_another_to_close() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let (told, mut heard) = tokio::sync::mpsc::channel(8);
        let count = Arc::clone(&served);
        let serving = tokio::spawn(async move {
            let converse = |mut stream: TcpStream| {
                let (count, told) = (Arc::clone(&count), told.clone());
                async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    told.send(()).await.unwrap();
                    while stream.read_u8().await.is_ok() {}
                }
            };
            serve(&listener, 2, "test", converse).await;
        });
        let first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let _third = TcpStream::connect(address).await.unwrap();
        for _ in 0..2 {
            heard.recv().await.unwrap();
        }
        assert_eq!(served.load(Ordering::SeqCst), 2, "the third waits");
        drop(first);
        heard.recv().await.unwrap();
        assert_eq!(served.load(Ordering::SeqCst), 3);
        serving.abort();
    }
}
