//! Questions to the local speaker.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use caracal_bgp_speaker::api::{DumpHeader, Request, Response};
use caracal_bgp_speaker::handle::Dump;
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

    /// One question with an answer in octets, of which `part` is given some at a time. The speaker may
    /// take `patience` over each.
    pub(super) fn dump(
        &mut self,
        what: Dump,
        patience: Duration,
        mut part: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.write(&Request::Dump { what })?;
        loop {
            self.wait_for(patience)?;
            let (header, octets, last) = self.part()?;
            if header.lost > 0 {
                bail!("the speaker has left out {} messages", header.lost);
            }
            part(&octets)?;
            if last {
                return Ok(());
            }
        }
    }

    /// The same for what comes when it comes: until `end`, or for ever. `part` is told how many
    /// messages are missing, too.
    pub(super) fn dump_until(
        &mut self,
        what: Dump,
        end: Option<Instant>,
        mut part: impl FnMut(&[u8], usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.write(&Request::Dump { what })?;
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(());
            }
            let set = self.stream.get_ref().set_read_timeout(left);
            set.with_context(|| self.asking())?;
            match self.stream.fill_buf() {
                // The socket says so when the time is up.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| self.asking()),
                Ok(_) => {}
            }
            self.wait_for(PATIENCE)?;
            let (header, octets, last) = self.part()?;
            part(&octets, header.lost)?;
            if last {
                return Ok(());
            }
        }
    }

    fn wait_for(&self, patience: Duration) -> anyhow::Result<()> {
        let set = self.stream.get_ref().set_read_timeout(Some(patience));
        set.with_context(|| self.asking())
    }

    /// The next part of a dump; whether it is the last.
    fn part(&mut self) -> anyhow::Result<(DumpHeader, Vec<u8>, bool)> {
        /// A speaker's parts are much shorter.
        const LONGEST: usize = 256 * 1024 * 1024;
        let (header, last) = match self.read::<DumpHeader>()? {
            Response::Part(header) => (header, false),
            Response::Ok(header) => (header, true),
            Response::Error(why) => bail!("{why}"),
        };
        if header.octets > LONGEST {
            bail!("the speaker sends a part of {} octets", header.octets);
        }
        let mut octets = vec![0; header.octets];
        let read = self.stream.read_exact(&mut octets);
        read.with_context(|| self.asking())?;
        Ok((header, octets, last))
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
            return Err(anyhow!("it ended its answer")).context(self.asking());
        }
        serde_json::from_str(&answer).with_context(|| self.asking())
    }

    fn asking(&self) -> Unreachable {
        Unreachable(format!(
            "cannot ask the speaker at {}",
            self.socket.display()
        ))
    }
}
