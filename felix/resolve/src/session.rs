//! From a BGPPeer to one session.
//!
//! Owns what the fields of a BGPPeer mean for a session. Does not own who has which session, which
//! is [`crate::peers`]'s, nor policies.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use caracal_bgp_core::types::{Asn, Family, RouterId};
use caracal_bgp_speaker::config::{
    Activation, AddPath, AddPathSend, AoAlgorithm, AoKey, AoKeyId, AoKeys, Auth, BfdConfig,
    BgpRole, Endpoint, Lack, MaxPrefixAction, MaxPrefixes, NextHopMode, OnBfdFailure, PeerAs,
    PeerConfig, PrivateAs, Ttl,
};
use caracal_crds::{BgpPeerSpec, PeerRole, RemovePrivateAs, TcpAo, TcpAoAlgorithm, reasons};

use crate::finding::{Findings, ObjectRef};
use crate::resolve::KernelFeatures;
use crate::secrets::{LONGEST_BFD_KEY, LONGEST_TCP_KEY, Missing, Secrets};
use crate::settings::Settings;

/// RFC 9687 §4: a send hold time that is not configured is the greater of this and twice the hold
/// time.
const LEAST_SEND_HOLD_TIME: Duration = Duration::from_secs(480);

/// RFC 9003 §2: the length of a message takes one octet.
const LONGEST_MESSAGE: usize = 255;

const DEFAULT_BFD_INTERVAL: Duration = Duration::from_millis(300);
const DEFAULT_DETECT_MULTIPLIER: u8 = 3;

const DEFAULT_WARNING_PERCENT: u8 = 75;

/// The limit of a family for which a BGPPeer gives none. A table of the whole Internet, which was
/// little over a million IPv4 prefixes in 2026, is no reason for a warning, not even for the one at
/// 75 %; what is beyond that is a mistake or malice. It warns only: who has set no limit has a network
/// that works, and a default must not end its sessions.
const DEFAULT_MAX_PREFIXES: MaxPrefixes = MaxPrefixes {
    limit: 2_000_000,
    warning_percent: DEFAULT_WARNING_PERCENT,
    action: MaxPrefixAction::Warn,
};

/// What a session is made of, beside its BGPPeer.
pub(crate) struct Ground<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) secrets: Secrets<'a>,
    pub(crate) kernel: KernelFeatures,
    /// InternalIPs of this node.
    pub(crate) addresses: &'a [IpAddr],
    /// The cluster that this node reflects for by its label.
    pub(crate) reflects_for: Option<RouterId>,
}

impl Ground<'_> {
    fn asn(&self) -> Asn {
        self.settings.identity.asn
    }

    /// A session as the configuration of the speaker has it, for peers that no BGPPeer names too.
    pub(crate) fn plain(&self, remote: Endpoint, peer_as: PeerAs) -> PeerConfig {
        let settings = self.settings;
        let hold_time = settings.hold_time;
        PeerConfig {
            hold_time,
            keepalive_time: settings
                .keepalive_time
                .filter(|time| keeps_alive(*time, hold_time)),
            send_hold_time: settings
                .send_hold_time
                .filter(|time| outlasts(*time, hold_time))
                .unwrap_or_else(|| send_hold_time(hold_time)),
            connect_retry: settings.connect_retry,
            graceful_restart: settings.offers_restart,
            draining: settings.drain.map(str::to_owned),
            ..PeerConfig::at(remote, peer_as)
        }
    }

    /// The session that `spec` describes, with its peer at `remote`, without policies. `cluster` is
    /// what the peer reflects for, where it is a node. What of `spec` cannot be followed is found.
    pub(crate) fn session(
        &self,
        spec: &BgpPeerSpec,
        remote: Endpoint,
        peer_as: PeerAs,
        cluster: Option<RouterId>,
        found: &mut Found<'_>,
    ) -> PeerConfig {
        let internal = peer_as.is_internal(self.asn());
        let plain = self.plain(remote, peer_as);
        let mut families: Vec<Family> = spec.families.iter().map(|f| family(*f)).collect();
        families.sort_unstable();
        families.dedup();
        let (hold_time, keepalive_time, send_hold_time) = self.timers(spec, found);
        let client = self.client(spec, internal, cluster, found);
        let restart = spec.graceful_restart.unwrap_or_default();
        let mut session = PeerConfig {
            description: spec.description.clone().unwrap_or_default(),
            local_address: self.local_address(spec, &plain.remote, found),
            local_asn: self.local_asn(spec, internal, found),
            activation: activation(spec),
            add_path: add_path(spec),
            extended_next_hop: spec
                .extended_next_hop
                .unwrap_or(matches!(plain.remote, Endpoint::Interface { .. })),
            extended_messages: spec.extended_messages.unwrap_or(true),
            families,
            hold_time,
            keepalive_time,
            send_hold_time,
            connect_retry: spec
                .connect_retry_time
                .map_or(plain.connect_retry, |duration| duration.0),
            passive: spec.passive || matches!(plain.remote, Endpoint::Range { .. }),
            next_hop_mode: match spec.next_hop_mode {
                caracal_crds::NextHopMode::Auto => NextHopMode::Auto,
                caracal_crds::NextHopMode::Own => NextHopMode::Self_,
                caracal_crds::NextHopMode::Keep => NextHopMode::Keep,
            },
            ttl: ttl(spec, internal, found),
            reachable_by: reachable_by(spec, &plain.remote, found),
            graceful_restart: restart.enabled.unwrap_or(plain.graceful_restart),
            restart_time: spec
                .max_restart_time
                .or(restart.restart_time)
                .map(|duration| duration.0),
            long_lived_stale_time: restart.long_lived_stale_time.map(|duration| duration.0),
            max_prefixes: max_prefixes(spec),
            allowed_local_as: spec.num_allowed_local_as_numbers.unwrap_or(0),
            as_override: external_only(
                spec.as_override.filter(|on| *on),
                "spec.asOverride",
                internal,
                found,
            )
            .is_some(),
            private_as: private_as(spec, internal, found),
            role: external_only(spec.role, "spec.role", internal, found).map(our_role),
            role_strict: spec.role_strict.unwrap_or(false),
            route_reflector_client: client,
            cluster_id: spec.cluster_id.filter(|_| client).map(RouterId::from),
            // Named first, as it does more: see the import policy.
            draining: if spec.drain {
                Some("drain of its BGPPeer".to_owned())
            } else {
                plain.draining
            },
            ..plain
        };
        session.bfd = self.bfd(
            spec.bfd.as_ref(),
            spec,
            internal,
            &mut session.activation,
            found,
        );
        match self.authentication(spec) {
            Ok(authentication) => session.authentication = authentication,
            Err((field, missing)) => found.hold(&mut session.activation, field, missing),
        }
        session
    }

    fn timers(
        &self,
        spec: &BgpPeerSpec,
        found: &mut Found<'_>,
    ) -> (Duration, Option<Duration>, Duration) {
        let settings = self.settings;
        let hold_time = spec.hold_time.map_or(settings.hold_time, |d| d.0);
        // The two may come from different objects, so that no rule of one could compare them.
        let keepalive = spec.keepalive_time.map(|d| d.0).or(settings.keepalive_time);
        let fits = keepalive.filter(|time| keeps_alive(*time, hold_time));
        if keepalive != fits {
            let message = format!(
                "keepalives must come more often than every {hold_time:?}: a third of the hold \
                 time agreed is used"
            );
            found.add("spec.keepaliveTime", reasons::INVALID_SPEC, message);
        }
        let send_hold = spec.send_hold_time.map(|d| d.0).or(settings.send_hold_time);
        if send_hold.is_some_and(|time| !outlasts(time, hold_time)) {
            let message = format!(
                "must be longer than the hold time of {hold_time:?} (RFC 9687): {:?} is used",
                send_hold_time(hold_time)
            );
            found.add("spec.sendHoldTime", reasons::INVALID_SPEC, message);
        }
        let send_hold = send_hold
            .filter(|time| outlasts(*time, hold_time))
            .unwrap_or_else(|| send_hold_time(hold_time));
        (hold_time, fits, send_hold)
    }

    /// Calico's rule beside the field: a reflector has every iBGP peer as client that does not
    /// reflect for the same cluster.
    fn client(
        &self,
        spec: &BgpPeerSpec,
        internal: bool,
        cluster: Option<RouterId>,
        found: &mut Found<'_>,
    ) -> bool {
        if spec.route_reflector_client && !internal {
            let message = format!(
                "the peer is not in our AS, {}: only internal peers can be clients (RFC 4456)",
                self.asn()
            );
            found.add("spec.routeReflectorClient", reasons::INVALID_SPEC, message);
        }
        let by_label = self.reflects_for.is_some() && self.reflects_for != cluster;
        internal && (spec.route_reflector_client || by_label)
    }

    fn local_address(
        &self,
        spec: &BgpPeerSpec,
        remote: &Endpoint,
        found: &mut Found<'_>,
    ) -> Option<IpAddr> {
        if spec.source_address != Some(caracal_crds::SourceAddress::UseNodeIp) {
            return spec.local_address;
        }
        let wanted = remote.address().map(|remote| Family::of(remote.ip()))?;
        let own = self.addresses.iter().copied();
        let address = own
            .into_iter()
            .find(|address| Family::of(*address) == wanted);
        if address.is_none() {
            let message =
                format!("the node has no InternalIP for {wanted}: the kernel chooses the address");
            found.add("spec.sourceAddress", reasons::INVALID_SPEC, message);
        }
        address
    }

    fn local_asn(&self, spec: &BgpPeerSpec, internal: bool, found: &mut Found<'_>) -> Option<Asn> {
        let local = spec.local_as_number.map(Asn);
        external_only(local, "spec.localASNumber", internal, found).filter(|asn| *asn != self.asn())
    }

    fn authentication(&self, spec: &BgpPeerSpec) -> Result<Auth, (&'static str, Missing)> {
        if let Some(password) = &spec.password {
            return self
                .md5(&password.secret_key_ref)
                .map_err(|missing| ("spec.password", missing));
        }
        match &spec.tcp_ao {
            Some(ao) => self.keychain(ao).map_err(|missing| ("spec.tcpAO", missing)),
            None => Ok(Auth::None),
        }
    }

    /// The key of TCP-MD5.
    pub(crate) fn md5(&self, reference: &caracal_crds::SecretKeyRef) -> Result<Auth, Missing> {
        if !self.kernel.tcp_md5 {
            return Err(lacking("TCP-MD5"));
        }
        let key = self.secrets.find(reference, LONGEST_TCP_KEY)?;
        Ok(Auth::Md5(key))
    }

    fn keychain(&self, ao: &TcpAo) -> Result<Auth, Missing> {
        if !self.kernel.tcp_ao {
            return Err(lacking("TCP-AO"));
        }
        let key = |key: &caracal_crds::TcpAoKey| {
            Ok(AoKey {
                id: AoKeyId {
                    send: key.send_id,
                    receive: key.receive_id,
                },
                algorithm: match key.algorithm.unwrap_or_default() {
                    TcpAoAlgorithm::HmacSha1 => AoAlgorithm::HmacSha1,
                    TcpAoAlgorithm::Aes128Cmac => AoAlgorithm::CmacAes128,
                },
                exclude_options: !ao.include_tcp_options.unwrap_or(true),
                secret: self.secrets.find(&key.secret_key_ref, LONGEST_TCP_KEY)?,
            })
        };
        let keys = ao.keys.iter().map(key).collect::<Result<_, Missing>>()?;
        let keys = AoKeys::new(keys).map_err(|error| Missing {
            lack: Lack::ValidConfiguration,
            message: error.to_string(),
        })?;
        Ok(Auth::Ao(keys))
    }

    fn bfd(
        &self,
        bfd: Option<&caracal_crds::Bfd>,
        spec: &BgpPeerSpec,
        internal: bool,
        activation: &mut Activation,
        found: &mut Found<'_>,
    ) -> Option<BfdConfig> {
        let bfd = bfd?;
        let distant = spec.ebgp_multi_hop.is_some_and(|hops| hops > 1)
            || spec.ttl_security.is_some_and(|hops| hops > 1);
        let multi_hop = (internal || distant) && spec.interface.is_none();
        match self.bfd_config(bfd, multi_hop) {
            Ok(config) => config,
            Err(missing) => {
                found.hold(activation, "spec.bfd.password", missing);
                None
            }
        }
    }

    /// BFD as `bfd` says; `multi_hop` where it does not say whether.
    pub(crate) fn bfd_config(
        &self,
        bfd: &caracal_crds::Bfd,
        multi_hop: bool,
    ) -> Result<Option<BfdConfig>, Missing> {
        if !bfd.enabled {
            return Ok(None);
        }
        let interval = |own: Option<caracal_crds::DurationString>| {
            own.map_or(DEFAULT_BFD_INTERVAL, |duration| duration.0)
        };
        let password = bfd.password.as_ref();
        let password = password
            .map(|source| self.secrets.find(&source.secret_key_ref, LONGEST_BFD_KEY))
            .transpose()?;
        Ok(Some(BfdConfig {
            transmit: interval(bfd.minimum_transmit_interval),
            receive: interval(bfd.minimum_receive_interval),
            detect_multiplier: bfd.detect_multiplier.unwrap_or(DEFAULT_DETECT_MULTIPLIER),
            multi_hop: bfd
                .multi_hop
                .unwrap_or(multi_hop)
                .then(|| bfd.minimum_ttl.unwrap_or(1)),
            strict: bfd.strict.unwrap_or(false),
            on_failure: match bfd.on_failure.unwrap_or_default() {
                caracal_crds::OnBfdFailure::PreferFailover => OnBfdFailure::PreferFailover,
                caracal_crds::OnBfdFailure::PreferRestart => OnBfdFailure::PreferRestart,
            },
            password,
        }))
    }
}

fn keeps_alive(keepalive: Duration, hold_time: Duration) -> bool {
    hold_time.is_zero() || keepalive < hold_time
}

fn outlasts(send_hold: Duration, hold_time: Duration) -> bool {
    send_hold.is_zero() || send_hold > hold_time
}

fn send_hold_time(hold_time: Duration) -> Duration {
    LEAST_SEND_HOLD_TIME.max(2 * hold_time)
}

fn lacking(what: &str) -> Missing {
    Missing {
        lack: Lack::KernelSupport,
        message: format!("the kernel of this node has no {what}"),
    }
}

fn reason(lack: Lack) -> &'static str {
    match lack {
        Lack::Secret => reasons::MISSING_SECRET,
        Lack::SecretKey => reasons::MISSING_SECRET_KEY,
        Lack::ValidSecret => reasons::INVALID_SECRET,
        Lack::KernelSupport => reasons::NOT_SUPPORTED_BY_KERNEL,
        Lack::ValidConfiguration => reasons::INVALID_SPEC,
    }
}

/// Where findings about one object go.
pub(crate) struct Found<'a> {
    pub(crate) object: &'a ObjectRef,
    pub(crate) findings: &'a mut Findings,
}

impl Found<'_> {
    pub(crate) fn add(&mut self, field: &str, reason: &'static str, message: impl Into<String>) {
        self.findings.add(self.object, field, reason, message);
    }

    /// Says that something is missing without which the session must not run.
    pub(crate) fn hold(&mut self, activation: &mut Activation, field: &str, missing: Missing) {
        let Missing { lack, message } = missing;
        let reason = reason(lack);
        let why = format!("{message} ({reason})");
        self.add(field, reason, format!("{message}: the session is held"));
        // What an operator keeps down is down anyway.
        if *activation == Activation::Run {
            *activation = Activation::Held { lack, why };
        }
    }
}

/// A setting that has no meaning within an AS.
fn external_only<T>(
    value: Option<T>,
    field: &str,
    internal: bool,
    found: &mut Found<'_>,
) -> Option<T> {
    if value.is_some() && internal {
        let message = "the peer is in our AS: this is for peers of other ASes and not done";
        found.add(field, reasons::INVALID_SPEC, message);
        return None;
    }
    value
}

pub(crate) fn family(family: caracal_crds::Family) -> Family {
    match family {
        caracal_crds::Family::Ipv4Unicast => Family::Ipv4Unicast,
        caracal_crds::Family::Ipv6Unicast => Family::Ipv6Unicast,
    }
}

fn activation(spec: &BgpPeerSpec) -> Activation {
    let Some(down) = &spec.admin_down else {
        return Activation::Run;
    };
    let end = down.message.floor_char_boundary(LONGEST_MESSAGE);
    Activation::Down {
        message: down.message[..end].to_owned(),
    }
}

fn add_path(spec: &BgpPeerSpec) -> BTreeMap<Family, AddPath> {
    let entry = |entry: &caracal_crds::AddPath| {
        let send = match entry.send.unwrap_or_default() {
            caracal_crds::AddPathSend::None => AddPathSend::None,
            caracal_crds::AddPathSend::All => AddPathSend::All,
            caracal_crds::AddPathSend::Best => AddPathSend::Best(entry.send_count.unwrap_or(1)),
        };
        let receive = entry.receive;
        (family(entry.family), AddPath { send, receive })
    };
    let mut add_path: BTreeMap<Family, AddPath> = spec.add_path.iter().map(entry).collect();
    // One that asks for nothing is the same as none.
    add_path.retain(|_, add_path| *add_path != AddPath::default());
    add_path
}

fn max_prefixes(spec: &BgpPeerSpec) -> BTreeMap<Family, MaxPrefixes> {
    let limit = |entry: &caracal_crds::MaxPrefixes| {
        let action = match entry.action.unwrap_or_default() {
            caracal_crds::MaxPrefixAction::None => return None,
            caracal_crds::MaxPrefixAction::Warn => MaxPrefixAction::Warn,
            caracal_crds::MaxPrefixAction::Terminate => MaxPrefixAction::Terminate {
                restart_after: entry.restart_after.map(|duration| duration.0),
            },
        };
        Some(MaxPrefixes {
            limit: entry.limit?,
            warning_percent: entry.warning_percent.unwrap_or(DEFAULT_WARNING_PERCENT),
            action,
        })
    };
    let of = |wanted: Family| {
        let mut entries = spec.max_prefixes.iter();
        match entries.find(|entry| family(entry.family) == wanted) {
            Some(entry) => limit(entry),
            None => Some(DEFAULT_MAX_PREFIXES),
        }
    };
    Family::ALL
        .into_iter()
        .filter_map(|family| Some((family, of(family)?)))
        .collect()
}

fn ttl(spec: &BgpPeerSpec, internal: bool, found: &mut Found<'_>) -> Ttl {
    if let Some(hops) = spec.ttl_security {
        return Ttl::Security { hops };
    }
    external_only(spec.ebgp_multi_hop, "spec.ebgpMultiHop", internal, found)
        .map_or(Ttl::Automatic, Ttl::Send)
}

fn reachable_by(spec: &BgpPeerSpec, remote: &Endpoint, found: &mut Found<'_>) -> Option<IpAddr> {
    let gateway = spec.reachable_by?;
    let fits = remote
        .address()
        .is_some_and(|remote| remote.is_ipv4() == gateway.is_ipv4());
    if !fits {
        let message = "needs a peer with an address of the same family: no route is made";
        found.add("spec.reachableBy", reasons::INVALID_SPEC, message);
        return None;
    }
    Some(gateway)
}

fn private_as(spec: &BgpPeerSpec, internal: bool, found: &mut Found<'_>) -> PrivateAs {
    let field = "spec.removePrivateAS";
    match external_only(spec.remove_private_as, field, internal, found) {
        None => PrivateAs::Keep,
        Some(RemovePrivateAs::Remove) => PrivateAs::Remove,
        Some(RemovePrivateAs::Replace) => PrivateAs::Replace,
    }
}

/// The other end of what the peer is to us (RFC 9234 §4.2).
fn our_role(theirs: PeerRole) -> BgpRole {
    match theirs {
        PeerRole::Provider => BgpRole::Customer,
        PeerRole::Customer => BgpRole::Provider,
        PeerRole::RouteServer => BgpRole::RouteServerClient,
        PeerRole::RouteServerClient => BgpRole::RouteServer,
        PeerRole::Peer => BgpRole::Peer,
    }
}
