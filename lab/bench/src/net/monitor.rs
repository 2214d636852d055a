//! What the kernel says of its routes, as it says it.
//!
//! Owns a netlink socket in the daemon's namespace and the table that follows from its notifications. Does not
//! own what the table should be ([`crate::cases`]).

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use super::netns::{Netns, pin};
use crate::prefix::Prefix;

/// Counts of notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// RTM_NEWROUTE and RTM_DELROUTE.
    pub routes: u64,
    /// RTM_NEWNEXTHOP.
    pub next_hop_updates: u64,
    /// RTM_DELNEXTHOP.
    pub next_hop_removals: u64,
}

/// The kernel's IPv4 table, main table only, by its own account.
#[derive(Debug, Default)]
pub struct Table {
    routes: HashMap<Prefix, Ways>,
    groups: HashMap<u32, usize>,
    /// Routes on each next-hop object.
    users: HashMap<u32, usize>,
    /// Routes with so many next hops of their own.
    own: HashMap<usize, usize>,
    /// What has been notified so far.
    pub messages: Messages,
    /// When the last of it came.
    pub last: Option<Instant>,
    /// Whether the kernel had to throw notifications away.
    pub overrun: bool,
}

/// How a route leads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ways {
    /// By a next-hop object.
    Object(u32),
    /// By so many next hops of its own.
    Own(usize),
}

impl Table {
    /// Routes with exactly `ways` next hops.
    pub fn with_ways(&self, ways: usize) -> usize {
        let by_object = self.users.iter().filter_map(|(object, count)| {
            let members = self.groups.get(object).copied().unwrap_or(1);
            (members == ways).then_some(*count)
        });
        by_object.sum::<usize>() + self.own.get(&ways).copied().unwrap_or(0)
    }

    /// The prefixes with exactly `ways` next hops.
    pub fn prefixes_with_ways(&self, ways: usize) -> HashSet<Prefix> {
        let of = |route: &Ways| match route {
            Ways::Object(object) => self.groups.get(object).copied().unwrap_or(1),
            Ways::Own(count) => *count,
        };
        let routes = self.routes.iter().filter(|(_, route)| of(route) == ways);
        routes.map(|(prefix, _)| *prefix).collect()
    }

    /// Takes in one datagram of the kernel.
    pub fn read(&mut self, mut datagram: &[u8]) {
        while let Some((header, rest)) = datagram.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let Some(body) = length.checked_sub(16).and_then(|length| rest.get(..length)) else {
                return;
            };
            self.message(kind, body);
            datagram = rest.get((length - 16).next_multiple_of(4)..).unwrap_or(&[]);
        }
    }

    fn message(&mut self, kind: u16, body: &[u8]) {
        match kind {
            NEW_ROUTE | DEL_ROUTE => {
                let Some((prefix, ways)) = route(body) else {
                    return;
                };
                self.messages.routes += 1;
                self.set(prefix, (kind == NEW_ROUTE).then_some(ways));
            }
            NEW_NEXT_HOP | DEL_NEXT_HOP => {
                let Some((id, members)) = next_hop(body) else {
                    return;
                };
                if kind == NEW_NEXT_HOP {
                    self.messages.next_hop_updates += 1;
                    // An object that is no group is one next hop.
                    self.groups.insert(id, members.unwrap_or(1));
                } else {
                    self.messages.next_hop_removals += 1;
                    self.groups.remove(&id);
                }
            }
            _ => return,
        }
        self.last = Some(Instant::now());
    }

    fn set(&mut self, prefix: Prefix, ways: Option<Ways>) {
        let before = match ways {
            Some(ways) => self.routes.insert(prefix, ways),
            None => self.routes.remove(&prefix),
        };
        let mut count = |ways: Ways, by: isize| {
            let count = match ways {
                Ways::Object(object) => self.users.entry(object).or_default(),
                Ways::Own(ways) => self.own.entry(ways).or_default(),
            };
            *count = count.saturating_add_signed(by);
        };
        if let Some(before) = before {
            count(before, -1);
        }
        if let Some(ways) = ways {
            count(ways, 1);
        }
    }
}

/// A thread that follows the kernel's notifications. It ends with the value.
#[derive(Debug)]
pub struct Monitor {
    table: Arc<Mutex<Table>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts to listen in `namespace`, on `core` if one is given.
    ///
    /// # Errors
    /// No socket can be had there.
    pub fn start(namespace: &Netns, core: Option<usize>) -> anyhow::Result<Self> {
        let socket = namespace.run(None, || open(ROUTES | NEXT_HOPS))?;
        let table = Arc::new(Mutex::new(Table::default()));
        let end = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (table.clone(), end.clone());
        let thread = std::thread::Builder::new()
            .name("monitor".into())
            .spawn(move || {
                // A thread that cannot be pinned measures all the same.
                let _ = pin(core);
                follow(&socket, &shared, &ended);
            })
            .context("cannot start a thread")?;
        Ok(Self {
            table,
            end,
            thread: Some(thread),
        })
    }

    /// The table as it stands.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks the kernel of `namespace` for all its routes and next-hop objects.
///
/// # Errors
/// It does not answer.
pub fn dump(namespace: &Netns) -> anyhow::Result<Table> {
    namespace.run(None, || {
        let socket = open(0)?;
        let mut table = Table::default();
        // struct rtmsg of 12 octets, struct nhmsg of 8: family first, the rest zero.
        ask(&socket, GET_NEXT_HOP, &[0; 8], &mut table)?;
        let mut all_routes = [0; 12];
        all_routes[0] = INET;
        ask(&socket, GET_ROUTE, &all_routes, &mut table)?;
        Ok(table)
    })
}

/// Takes a link of `namespace` down, or up.
///
/// # Errors
/// There is no such link, or the kernel refuses.
pub fn set_link(namespace: &Netns, name: &str, up: bool) -> anyhow::Result<()> {
    const NEW_LINK: u16 = 16;
    const REQUEST_ACK: u16 = 5;
    const UP: u32 = 1;
    namespace.run(None, || {
        let index = if_nametoindex(name).with_context(|| format!("there is no link {name}"))?;
        let socket = open(0)?;
        // struct ifinfomsg: family, type, index, flags, which flags count.
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(if up { UP } else { 0 }.to_ne_bytes());
        body.extend(UP.to_ne_bytes());
        request(&socket, NEW_LINK, REQUEST_ACK, &body)?;
        let mut answer = [0; 1024];
        wait(&socket)?;
        let count = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())
            .context("the kernel does not answer")?;
        // struct nlmsgerr: zero, or an error number with a minus sign.
        let error = answer[..count]
            .get(16..20)
            .and_then(|octets| octets.try_into().ok());
        match error.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(error) => bail!("cannot set {name}: {}", Errno::from_raw(-error)),
            None => bail!("cannot set {name}: the kernel's answer is too short"),
        }
    })
}

fn request(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> anyhow::Result<()> {
    let mut request = Vec::with_capacity(32);
    request.extend((16 + body.len() as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    send(socket.as_raw_fd(), &request, MsgFlags::empty()).context("cannot ask the kernel")?;
    Ok(())
}

fn ask(socket: &OwnedFd, kind: u16, body: &[u8], table: &mut Table) -> anyhow::Result<()> {
    const REQUEST_DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    request(socket, kind, REQUEST_DUMP, body)?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let count = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => {
                wait(socket)?;
                continue;
            }
            Err(error) => return Err(error).context("cannot read the kernel's answer"),
        };
        let kind = u16::from_ne_bytes([buffer[4], buffer[5]]);
        if kind == DONE || kind == ERROR {
            return Ok(());
        }
        table.read(&buffer[..count]);
        // The end may come in the last datagram of the answer.
        if ends(&buffer[..count], DONE) {
            return Ok(());
        }
    }
}

/// Whether a message of `kind` is in the datagram.
fn ends(mut datagram: &[u8], kind: u16) -> bool {
    while let [a, b, c, d, e, f, ..] = *datagram {
        if u16::from_ne_bytes([e, f]) == kind {
            return true;
        }
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        datagram = datagram
            .get(length.max(16).next_multiple_of(4)..)
            .unwrap_or(&[]);
    }
    false
}

fn follow(socket: &OwnedFd, table: &Mutex<Table>, end: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM];
    while !end.load(Ordering::Relaxed) {
        if wait(socket).is_err() {
            return;
        }
        let mut table = table.lock().unwrap_or_else(|poison| poison.into_inner());
        // Let others look at the table now and then.
        for _ in 0..BATCH {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(count) => table.read(&buffer[..count]),
                Err(Errno::ENOBUFS) => table.overrun = true,
                Err(_) => break,
            }
        }
    }
}

fn wait(socket: &OwnedFd) -> nix::Result<()> {
    use std::os::fd::AsFd;
    let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut descriptors, PollTimeout::from(WAIT_MILLIS)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open(groups: u32) -> anyhow::Result<OwnedFd> {
    let descriptor = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )
    .context("cannot open a netlink socket")?;
    // Hundreds of thousands of notifications may come at once, and none must be lost.
    setsockopt(&descriptor, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .context("cannot enlarge a receive buffer")?;
    bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups))
        .context("cannot bind a netlink socket")?;
    Ok(descriptor)
}

/// Prefix and ways of a route of the main table; `None` for anything else.
fn route(body: &[u8]) -> Option<(Prefix, Ways)> {
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let (head, attributes) = body.split_first_chunk::<12>()?;
    if head[0] != INET || head[4] != MAIN_TABLE || head[7] != UNICAST {
        return None;
    }
    let (mut address, mut ways) = (0, Ways::Own(1));
    for (kind, value) in (Attributes { rest: attributes }) {
        match kind {
            RTA_DST => address = u32::from_be_bytes(value.try_into().ok()?),
            RTA_NH_ID => ways = Ways::Object(u32::from_ne_bytes(value.try_into().ok()?)),
            // With a next-hop object, its members are listed as well.
            RTA_MULTIPATH if !matches!(ways, Ways::Object(_)) => ways = Ways::Own(hops(value)),
            _ => {}
        }
    }
    Some((Prefix::new(address, head[1]), ways))
}

/// Number of entries of RTA_MULTIPATH, those on dead links aside.
fn hops(mut value: &[u8]) -> usize {
    const DEAD: u8 = 1;
    let mut count = 0;
    while let [low, high, flags, ..] = *value {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        count += usize::from(flags & DEAD == 0);
        value = value
            .get(length.max(8).next_multiple_of(4)..)
            .unwrap_or(&[]);
    }
    count
}

/// Number of an object, and of its members where it is a group.
fn next_hop(body: &[u8]) -> Option<(u32, Option<usize>)> {
    const ID: u16 = 1;
    const GROUP: u16 = 2;
    // struct nhmsg: family, scope, protocol, reserved, flags; entries of a group take eight octets.
    let (_, attributes) = body.split_first_chunk::<8>()?;
    let (mut id, mut members) = (None, None);
    for (kind, value) in (Attributes { rest: attributes }) {
        match kind {
            ID => id = Some(u32::from_ne_bytes(value.try_into().ok()?)),
            GROUP => members = Some(value.len() / 8),
            _ => {}
        }
    }
    Some((id?, members))
}

/// Attributes of a netlink message, as type and value.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

// linux/rtnetlink.h, linux/nexthop.h.
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEXT_HOP: u16 = 104;
const DEL_NEXT_HOP: u16 = 105;
const GET_NEXT_HOP: u16 = 106;
const RTA_DST: u16 = 1;
const RTA_MULTIPATH: u16 = 9;
const RTA_NH_ID: u16 = 30;
const INET: u8 = 2;
const MAIN_TABLE: u8 = 254;
const UNICAST: u8 = 1;
/// RTNLGRP_IPV4_ROUTE and RTNLGRP_NEXTHOP as bits.
const ROUTES: u32 = 1 << 6;
const NEXT_HOPS: u32 = 1 << 31;

const DATAGRAM: usize = 64 * 1024;
const RECEIVE_BUFFER: usize = 256 * 1024 * 1024;
const BATCH: usize = 512;
const WAIT_MILLIS: u16 = 50;

#[cfg(test)]
mod tests;
