//! One connection: what has come and what is to go.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollFlags;

/// The longest request: four thousand sessions with keys take less.
const LONGEST_REQUEST: usize = 4 << 20;
/// What is read at a time.
const READ: usize = 64 << 10;
/// Beyond this much unread output, requests wait, so that a client that asks and does not read gets
/// one answer at most.
const ENOUGH_OUTPUT: usize = 64 << 10;
/// Beyond this much unread output, events are left out, and told as how things stand later.
const LONGEST_EVENTS: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    interest: EpollFlags,
    input: Vec<u8>,
    /// Where the first request begins that has not been looked at.
    begin: usize,
    /// Up to where the input is known to have no end of line after that.
    searched: usize,
    output: Vec<u8>,
    written: usize,
    owner: Option<String>,
    subscribed: bool,
    lagged: bool,
    /// Whether the answer to a request is still being made; others wait, to keep the order.
    waiting: bool,
    /// Whether the other side will say no more.
    ended: bool,
    broken: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream, interest: EpollFlags) -> Self {
        Self {
            stream,
            interest,
            input: Vec::new(),
            begin: 0,
            searched: 0,
            output: Vec::new(),
            written: 0,
            owner: None,
            subscribed: false,
            lagged: false,
            waiting: false,
            ended: false,
            broken: false,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// A connection speaks for one owner, so that its end means one thing.
    pub(super) fn speak_for(&mut self, owner: &str) -> Result<(), String> {
        match &self.owner {
            Some(before) if before != owner => Err(format!(
                "this connection speaks for '{before}': use another for '{owner}'"
            )),
            _ => {
                self.owner = Some(owner.to_owned());
                Ok(())
            }
        }
    }

    pub(super) fn subscribe(&mut self) {
        self.subscribed = true;
    }

    pub(super) fn expect_answer(&mut self) {
        self.waiting = true;
    }

    pub(super) fn got_answer(&mut self) {
        self.waiting = false;
    }

    /// Takes in what has come, up to a request's length.
    pub(super) fn read(&mut self) {
        while self.input.len() <= LONGEST_REQUEST {
            let before = self.input.len();
            self.input.resize(before + READ, 0);
            let outcome = self.stream.read(&mut self.input[before..]);
            let got = outcome.as_ref().map_or(0, |got| *got);
            self.input.truncate(before + got);
            match outcome {
                Ok(0) => self.ended = true,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.broken = true,
            }
            return;
        }
    }

    /// The next request, if it is time for one.
    pub(super) fn next_line(&mut self) -> Option<Vec<u8>> {
        if self.broken || self.waiting || self.unread() > ENOUGH_OUTPUT {
            return None;
        }
        let Some(end) = self.find_line() else {
            if self.input.len() - self.begin > LONGEST_REQUEST {
                let why = format!("a request has more than {LONGEST_REQUEST} octets");
                self.say(&super::refuse(&why));
                // It hears why, if it listens, and no more.
                self.write();
                self.broken = true;
            }
            return None;
        };
        let line = self.input[self.begin..end].to_vec();
        self.begin = end + 1;
        self.searched = self.begin;
        if self.begin == self.input.len() || self.begin > READ {
            self.input.drain(..self.begin);
            (self.begin, self.searched) = (0, 0);
        }
        Some(line)
    }

    /// Where the first request ends, if all of it is there.
    fn find_line(&mut self) -> Option<usize> {
        let rest = &self.input[self.searched..];
        match rest.iter().position(|octet| *octet == b'\n') {
            Some(end) => Some(self.searched + end),
            None => {
                self.searched = self.input.len();
                None
            }
        }
    }

    /// Puts a line behind what is to go.
    pub(super) fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.push(b'\n');
    }

    /// Puts an event behind what is to go, for those who asked for events.
    pub(super) fn tell(&mut self, line: &str) {
        if !self.subscribed || self.lagged {
            return;
        }
        if self.unread() > LONGEST_EVENTS {
            self.lagged = true;
        } else {
            self.say(line);
        }
    }

    /// Whether events were left out and there is room again to say how things stand.
    pub(super) fn has_caught_up(&mut self) -> bool {
        self.unread() == 0 && std::mem::take(&mut self.lagged)
    }

    /// Writes as much as the other side takes.
    pub(super) fn write(&mut self) {
        while self.unread() > 0 && !self.broken {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => self.broken = true,
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.broken = true,
            }
        }
        self.output.clear();
        self.written = 0;
        // A snapshot is long, and the next one may be far.
        self.output.shrink_to(ENOUGH_OUTPUT);
    }

    fn unread(&self) -> usize {
        self.output.len() - self.written
    }

    /// Whether nothing more will happen here.
    pub(super) fn is_over(&mut self) -> bool {
        let done = self.ended && !self.waiting && self.unread() == 0;
        self.broken || done && self.find_line().is_none()
    }

    /// What to watch for from now on, if that has changed.
    pub(super) fn new_interest(&mut self) -> Option<EpollFlags> {
        let mut interest = EpollFlags::empty();
        if !self.ended && self.input.len() <= LONGEST_REQUEST {
            interest |= EpollFlags::EPOLLIN;
        }
        if self.unread() > 0 {
            interest |= EpollFlags::EPOLLOUT;
        }
        let changed = interest != self.interest;
        self.interest = interest;
        changed.then_some(interest)
    }
}
