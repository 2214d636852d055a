//! Questions to the local speaker.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use caracal_bgp_speaker::api::{Request, Response};
use serde::de::DeserializeOwned;

use crate::cmd::Unreachable;

/// A speaker answers in milliseconds unless its table is huge and it is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a speaker.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Client {
    /// # Errors
    /// [`Unreachable`] where nobody listens.
    pub(super) fn connect(socket: PathBuf) -> anyhow::Result<Self> {
        let connected = UnixStream::connect(&socket).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                socket,
            }),
            Err(error) => Err(error).context(Unreachable(format!(
                "cannot ask the speaker at {}",
                socket.display()
            ))),
        }
    }

    /// One question with one answer.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        self.write(request)?;
        match self.read()? {
            Response::Ok(value) => Ok(value),
            Response::Error(why) => bail!("{why}"),
            Response::Part(_) => bail!("the speaker answers in pages, which this version cannot"),
        }
    }

    /// One question with an answer in pages. Ends early when `page` has enough, which it says by
    /// `false`.
    pub(super) fn pages<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut page: impl FnMut(Vec<T>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        self.write(request)?;
        loop {
            match self.read()? {
                Response::Part(part) => {
                    if !page(part)? {
                        return Ok(());
                    }
                }
                Response::Ok(last) => {
                    page(last)?;
                    return Ok(());
                }
                Response::Error(why) => bail!("{why}"),
            }
        }
    }

    fn write(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(request).context("cannot write the question")?;
        line.push('\n');
        let written = self.stream.get_mut().write_all(line.as_bytes());
        written.with_context(|| self.asking())
    }

    fn read<T: DeserializeOwned>(&mut self) -> anyhow::Result<Response<T>> {
        let mut answer = String::new();
        let read = self.stream.read_line(&mut answer);
        if read.with_context(|| self.asking())? == 0 {
            bail!("the speaker at {} ended its answer", self.socket.display());
        }
        serde_json::from_str(&answer).with_context(|| self.asking())
    }

    fn asking(&self) -> String {
        format!("cannot ask the speaker at {}", self.socket.display())
    }
}
