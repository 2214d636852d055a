//! The vocabulary between the session machine and its shell: plain data, both ways.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use super::Invalid;
use super::auth::Auth;
use super::iana::{Diag, State};
use super::interval::Interval;
use super::packet::{Discard, Packet};

/// How fast, and how patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often we would like to send; not zero. Slower while the session is not up.
    pub desired_min_tx: Interval,
    /// How often we are willing to receive; not zero.
    pub required_min_rx: Interval,
    /// How many of our packets the peer must miss in a row.
    pub detect_mult: NonZeroU8,
}

impl Timing {
    /// From durations, as people configure them.
    ///
    /// # Errors
    /// An interval or the multiplier is zero, or an interval is longer than 32 bits of
    /// microseconds.
    pub fn new(
        desired_min_tx: Duration,
        required_min_rx: Duration,
        detect_mult: u8,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            desired_min_tx: desired_min_tx.try_into()?,
            required_min_rx: required_min_rx.try_into()?,
            detect_mult: NonZeroU8::new(detect_mult).ok_or(Invalid::DetectMult)?,
        })
    }
}

/// What a session begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our name for the session: unique on this system, and hard to guess (RFC 5880 §6.8.1).
    pub discriminator: NonZeroU32,
    /// How fast, and how patient.
    pub timing: Timing,
    /// Whether to say nothing before the peer does (RFC 5880 §6.1). Not both sides may.
    pub passive: bool,
    /// How packets are authenticated; `None` accepts none that is.
    pub auth: Option<Auth>,
    /// The C bit: whether this machine lives on when the control plane that uses it dies. It must be
    /// the truth, since peers end graceful restart by it (RFC 5882 §4.3).
    pub control_plane_independent: bool,
    /// Where jitter and sequence numbers begin; different for every session, and at every start.
    pub seed: u64,
}

/// What happened, told by the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet came that [`super::Demux::select`] gave to this session.
    Received(Packet),
    /// New timing. Changes while up go through a Poll Sequence and cost no flap.
    Timing(Timing),
    /// New keys. No flap as long as each side accepts what the other sends.
    Auth(Option<Auth>),
    /// Whether to wait for the peer to speak first; matters while it is unknown.
    Passive(bool),
    /// The client wants the session. Undoes [`Event::Disable`]; nothing otherwise.
    Enable,
    /// Nobody wants the session: tell the peer so by AdminDown, then say [`Action::Finished`].
    Disable {
        /// Why, in the peer's reading: usually [`Diag::AdministrativelyDown`].
        diag: Diag,
    },
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send now, with TTL 255 (RFC 5881 §5).
    Send(Packet),
    /// Tell the client.
    Changed(Change),
    /// The packet of the event just handled was thrown away: count it.
    Discarded(Discard),
    /// The peer was told AdminDown for a detection time: the session may be forgotten.
    Finished,
}

/// A change of state, as a client must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// The diagnostic that we send from now on.
    pub diag: Diag,
    /// What led here.
    pub why: Why,
    /// What the peer said last.
    pub remote: Remote,
    /// How long nothing had been heard, where that is what led here.
    pub silence: Option<Duration>,
}

impl Change {
    /// Whether the path to the peer must be taken for dead. RFC 5882 §3.2: a session that goes down
    /// because somebody took it down says nothing about the path, and clients let it be.
    pub fn is_failure(&self) -> bool {
        self.from == State::Up
            && matches!(
                self.why,
                Why::DetectionTimeExpired | Why::NeighborSignaledDown(_)
            )
    }
}

/// What led to the state that a session is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is new.
    NeverUp,
    /// The peer hears us, and we hear it.
    Heard,
    /// Nothing came for the detection time.
    DetectionTimeExpired,
    /// The peer says that its side is down, with its reason.
    NeighborSignaledDown(Diag),
    /// The peer's administrator holds it down.
    NeighborAdminDown(Diag),
    /// Our client no longer wants it.
    AdminDown(Diag),
}

/// What the peer said last. What is lost with the peer's silence is back at its initial value
/// (RFC 5880 §6.8.1, §6.8.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its name for the session; `None` while it is unknown.
    pub discriminator: Option<NonZeroU32>,
    /// Its state.
    pub state: State,
    /// Its diagnostic.
    pub diag: Diag,
    /// Its D bit.
    pub demand: bool,
    /// Its C bit. Outlives silence: it says whether the silence was of the forwarding plane.
    pub control_plane_independent: bool,
    /// How often it would like to send.
    pub desired_min_tx: Interval,
    /// How often it is willing to hear us.
    pub required_min_rx: Interval,
    /// How many of its packets must be missing.
    pub detect_mult: Option<NonZeroU8>,
}

impl Remote {
    /// RFC 5880 §6.8.1: bfd.RemoteMinRxInterval begins with one microsecond.
    pub(super) const INITIAL: Self = Self {
        discriminator: None,
        state: State::Down,
        diag: Diag::None,
        demand: false,
        control_plane_independent: false,
        desired_min_tx: Interval::ZERO,
        required_min_rx: Interval::from_micros(1),
        detect_mult: None,
    };
}
