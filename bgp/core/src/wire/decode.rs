//! Octets to UPDATEs.
//!
//! Owns which outcome each malformation of an UPDATE has (RFC 7606): nothing half-parsed leaves
//! this module. Does not own single attributes' values, see [`super::value`], nor the other
//! messages, see [`super::control`].

use crate::types::{Asn, Family, FamilySet, NextHop, Nlri, PeerKind};
use crate::wire::attributes::{Aggregator, AsPath, PathAttributes, RawAttribute};
use crate::wire::fault::{AttributeFault, Problem};
use crate::wire::iana::{AfiSafi, AttributeCode, UpdateError, flags};
use crate::wire::message::{Reach, Update};
use crate::wire::nlri;
use crate::wire::notification::Notification;
use crate::wire::value::{self, MpForm, MpReach};

/// What the session's terms mean to the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeContext {
    /// Whether the peer is in our AS.
    pub peer: PeerKind,
    /// Whether AS numbers take four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Families that the session carries; others are set aside.
    pub families: FamilySet,
    /// Families whose paths the peer sends with identifiers (RFC 7911).
    pub add_path: FamilySet,
    /// Whether IPv4 prefixes may come with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// The AS with which every path must begin; `None` where that may differ, as with internal
    /// peers and route servers.
    pub first_as: Option<Asn>,
}

impl DecodeContext {
    /// A session that carries every family with four-octet AS numbers and no further extension.
    pub fn new(peer: PeerKind) -> Self {
        Self {
            peer,
            four_octet_as: true,
            families: FamilySet::ALL,
            add_path: FamilySet::EMPTY,
            extended_next_hop: false,
            first_as: None,
        }
    }
}

/// What becomes of an UPDATE (RFC 7606 §2), mildest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Take it.
    Valid(Update),
    /// Take it; these attributes were left out.
    ValidWithDiscards {
        /// What remains.
        update: Update,
        /// What was left out, and why.
        discarded: Vec<AttributeFault>,
    },
    /// Treat all its prefixes, announced or not, as withdrawn.
    TreatAsWithdraw {
        /// Every path named, by family.
        withdrawn: Vec<(Family, Vec<Nlri>)>,
        /// The first fault that asks for this.
        reason: AttributeFault,
    },
    /// End the session with this NOTIFICATION.
    Reset(Notification),
}

/// Decodes the body of an UPDATE.
pub fn decode_update(body: &[u8], context: &DecodeContext) -> UpdateOutcome {
    let Some((withdrawn, attributes, announced)) = sections(body) else {
        // RFC 7606 §3 (b): lengths that contradict the message leave nothing to trust.
        return UpdateOutcome::Reset(Notification::new(UpdateError::MalformedAttributeList, []));
    };
    let ipv4 = |octets| {
        let family = Family::Ipv4Unicast;
        nlri::decode(octets, family, context.add_path.contains(family))
    };
    let (Ok(withdrawn), Ok(announced)) = (ipv4(withdrawn), ipv4(announced)) else {
        // RFC 7606 §5.3.
        return UpdateOutcome::Reset(Notification::new(UpdateError::InvalidNetworkField, []));
    };
    let mut reading = Reading::new(context);
    if let Err(notification) = reading.attributes(attributes, !announced.is_empty()) {
        return UpdateOutcome::Reset(notification);
    }
    let bare = attributes.is_empty() && withdrawn.is_empty() && announced.is_empty();
    reading.finish(withdrawn, announced, bare)
}

/// Withdrawn routes, path attributes and NLRI; `None` when the lengths do not add up.
fn sections(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, tail) = body.split_first_chunk()?;
    let (withdrawn, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (length, tail) = tail.split_first_chunk()?;
    let (attributes, announced) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((withdrawn, attributes, announced))
}

/// One UPDATE in the course of being read.
struct Reading<'a> {
    context: &'a DecodeContext,
    seen: Seen,
    attributes: PathAttributes,
    unknown: Vec<RawAttribute>,
    next_hop: Option<NextHop>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    reach: Option<MpReach>,
    /// An MP_REACH_NLRI of a family that the session does not carry.
    foreign_reach: bool,
    unreach: Option<(Family, Vec<Nlri>)>,
    discarded: Vec<AttributeFault>,
    /// The first fault that costs the routes, with the attribute as it came, for the case that it
    /// costs the session.
    withdraw: Option<(AttributeFault, &'a [u8])>,
}

/// Type codes of attributes met so far.
#[derive(Default)]
struct Seen {
    codes: [u64; 4],
    count: usize,
}

impl Seen {
    /// Adds `code`; whether it is new.
    fn insert(&mut self, code: u8) -> bool {
        let new = !self.contains(code);
        self.codes[usize::from(code >> 6)] |= 1 << (code & 63);
        self.count += usize::from(new);
        new
    }

    fn contains(&self, code: u8) -> bool {
        self.codes[usize::from(code >> 6)] & 1 << (code & 63) != 0
    }
}

/// One attribute as it came.
#[derive(Clone, Copy)]
struct Attribute<'a> {
    flags: u8,
    code: AttributeCode,
    value: &'a [u8],
    /// Flags to value, the data of NOTIFICATIONs.
    whole: &'a [u8],
}

impl<'a> Reading<'a> {
    fn new(context: &'a DecodeContext) -> Self {
        Self {
            context,
            seen: Seen::default(),
            unknown: Vec::new(),
            attributes: PathAttributes::default(),
            next_hop: None,
            as4_path: None,
            as4_aggregator: None,
            reach: None,
            foreign_reach: false,
            unreach: None,
            discarded: Vec::new(),
            withdraw: None,
        }
    }

    /// Reads every attribute; an error ends the session, everything else is noted.
    fn attributes(&mut self, mut area: &'a [u8], has_nlri: bool) -> Result<(), Notification> {
        while !area.is_empty() {
            let Some((attribute, tail)) = split_attribute(area) else {
                // RFC 7606 §4: the NLRI field is located by the total length, not by this.
                let code = area.get(1).copied().unwrap_or_default().into();
                self.withdraw(code, Problem::Overrun, area);
                break;
            };
            area = tail;
            let code = attribute.code;
            if !self.seen.insert(code.into()) {
                let fault = AttributeFault {
                    code,
                    problem: Problem::Duplicate,
                };
                if matches!(code, AttributeCode::MpReach | AttributeCode::MpUnreach) {
                    // RFC 7606 §3 (g).
                    return Err(fault.notification(attribute.whole));
                }
                self.discarded.push(fault);
                continue;
            }
            self.attribute(attribute, has_nlri)?;
        }
        Ok(())
    }

    fn attribute(&mut self, attribute: Attribute<'a>, has_nlri: bool) -> Result<(), Notification> {
        let code = attribute.code;
        let internal = self.context.peer == PeerKind::Internal;
        let only_internal = matches!(
            code,
            AttributeCode::LocalPref | AttributeCode::OriginatorId | AttributeCode::ClusterList
        );
        if only_internal && !internal {
            // RFC 7606 §§7.5, 7.9, 7.10: whatever its form.
            self.discard(code, Problem::FromExternal);
            return Ok(());
        }
        if code == AttributeCode::NextHop && !has_nlri {
            // RFC 4760 §3: it speaks of the NLRI field, which is empty.
            return Ok(());
        }
        if let Some(expected) = expected_flags(code)
            && !flags_agree(attribute.flags, expected)
        {
            let problem = Problem::Flags(attribute.flags);
            match code {
                // RFC 7606 §5.3: the attribute is incorrect as a whole.
                AttributeCode::MpReach | AttributeCode::MpUnreach
                    if kind(attribute.flags) != expected =>
                {
                    return Err(AttributeFault { code, problem }.notification(attribute.whole));
                }
                // Its prefixes still have to be found, to withdraw them.
                AttributeCode::MpReach | AttributeCode::MpUnreach => {
                    self.withdraw(code, problem, attribute.whole);
                }
                // Not recognised as far as their use goes: no worse than any other fault in them
                // (RFC 7311 §3.3, RFC 9552 §8.2.2, RFC 8669 §6).
                AttributeCode::Aigp | AttributeCode::LinkState | AttributeCode::PrefixSid => {
                    self.discard(code, problem);
                    return Ok(());
                }
                // RFC 7606 §3 (c).
                _ => {
                    self.withdraw(code, problem, attribute.whole);
                    return Ok(());
                }
            }
        }
        let outcome = match code {
            AttributeCode::MpReach | AttributeCode::MpUnreach => {
                return self.multiprotocol(attribute);
            }
            AttributeCode::Unknown(_) if attribute.flags & flags::OPTIONAL == 0 => {
                // RFC 4271 §6.3, which RFC 7606 leaves as it is.
                let problem = Problem::UnrecognizedWellKnown;
                return Err(AttributeFault { code, problem }.notification(attribute.whole));
            }
            _ => self.value(attribute),
        };
        match outcome {
            Ok(()) => {}
            Err(problem) if discardable(code, &problem) => self.discard(code, problem),
            Err(problem) => self.withdraw(code, problem, attribute.whole),
        }
        Ok(())
    }

    /// Reads a value into its place.
    fn value(&mut self, attribute: Attribute<'_>) -> Result<(), Problem> {
        let Attribute { code, value, .. } = attribute;
        let four_octet_as = self.context.four_octet_as;
        let known = &mut self.attributes;
        match code {
            AttributeCode::Origin => known.origin = value::origin(value)?,
            AttributeCode::AsPath => {
                known.as_path = value::as_path(value, four_octet_as)?;
                self.check_first_as()?;
            }
            AttributeCode::NextHop => self.next_hop = Some(value::next_hop(value)?),
            AttributeCode::Med => known.med = Some(value::number(value)?),
            AttributeCode::LocalPref => known.local_pref = Some(value::number(value)?),
            AttributeCode::AtomicAggregate => known.atomic_aggregate = value::empty(value)?,
            AttributeCode::Aggregator => {
                known.set_aggregator(Some(value::aggregator(value, four_octet_as)?));
            }
            AttributeCode::Communities => known.communities = value::communities(value)?,
            AttributeCode::OriginatorId => {
                known.originator_id = Some(value::router_id(value)?);
            }
            AttributeCode::ClusterList => known.cluster_list = value::cluster_list(value)?,
            AttributeCode::ExtCommunities => {
                let communities = value::ext_communities(value)?;
                known.edit_ext_communities(|known| *known = communities);
            }
            AttributeCode::LargeCommunities => {
                known.large_communities = value::large_communities(value)?;
            }
            AttributeCode::OnlyToCustomer => known.otc = Some(value::only_to_customer(value)?),
            AttributeCode::As4Path | AttributeCode::As4Aggregator if four_octet_as => {
                return Err(Problem::FromFourOctetSpeaker);
            }
            AttributeCode::As4Path => self.as4_path = Some(value::as4_path(value)?),
            AttributeCode::As4Aggregator => {
                self.as4_aggregator = Some(value::aggregator(value, true)?);
            }
            _ => {
                value::carried(code, value)?;
                self.carry(attribute);
            }
        }
        Ok(())
    }

    fn check_first_as(&self) -> Result<(), Problem> {
        match self.context.first_as {
            Some(asn) if self.attributes.as_path.first() != Some(asn) => Err(Problem::FirstAs(asn)),
            _ => Ok(()),
        }
    }

    /// Keeps an attribute that is not ours to read, if it is to travel on (RFC 4271 §5).
    fn carry(&mut self, attribute: Attribute<'_>) {
        if attribute.flags & flags::TRANSITIVE == 0 {
            return;
        }
        self.unknown.push(RawAttribute {
            flags: flags::OPTIONAL | flags::TRANSITIVE | flags::PARTIAL,
            code: attribute.code.into(),
            value: attribute.value.to_vec(),
        });
    }

    fn multiprotocol(&mut self, attribute: Attribute<'a>) -> Result<(), Notification> {
        let Attribute { code, value, .. } = attribute;
        // RFC 7606 §§5.3, 7.11, 7.12: without its prefixes the attribute cannot even be withdrawn.
        let reset = |problem| AttributeFault { code, problem }.notification(attribute.whole);
        let (family, content) = value::afi_safi(value).map_err(reset)?;
        if code == AttributeCode::MpReach && content.len() < 2 {
            // RFC 7606 §5.3: too short for any family.
            return Err(reset(Problem::Length(value.len())));
        }
        let Some(family) = self.carried_family(family) else {
            self.foreign_reach |= code == AttributeCode::MpReach;
            self.discard(code, Problem::Family(family));
            return Ok(());
        };
        let form = MpForm {
            with_ids: self.context.add_path.contains(family),
            extended_next_hop: self.context.extended_next_hop,
        };
        if code == AttributeCode::MpUnreach {
            let paths = nlri::decode(content, family, form.with_ids);
            self.unreach = Some((family, paths.map_err(|_| reset(Problem::Value))?));
            return Ok(());
        }
        let reach = value::mp_reach(content, family, form).map_err(reset)?;
        if reach.next_hop.is_none() {
            self.withdraw(code, Problem::Value, attribute.whole);
        }
        self.reach = Some(reach);
        Ok(())
    }

    fn carried_family(&self, family: AfiSafi) -> Option<Family> {
        let family = family.family()?;
        self.context.families.contains(family).then_some(family)
    }

    fn discard(&mut self, code: AttributeCode, problem: Problem) {
        self.discarded.push(AttributeFault { code, problem });
    }

    fn withdraw(&mut self, code: AttributeCode, problem: Problem, whole: &'a [u8]) {
        let fault = AttributeFault { code, problem };
        self.withdraw.get_or_insert((fault, whole));
    }

    /// Judges the UPDATE as a whole.
    fn finish(&mut self, withdrawn: Vec<Nlri>, announced: Vec<Nlri>, bare: bool) -> UpdateOutcome {
        let reaches = !announced.is_empty()
            || self.foreign_reach
            || self
                .reach
                .as_ref()
                .is_some_and(|reach| !reach.nlri.is_empty());
        if reaches {
            self.require_mandatory(!announced.is_empty());
        }
        let ipv4_carried = self.context.families.contains(Family::Ipv4Unicast);
        let (withdrawn, announced) = if ipv4_carried {
            (withdrawn, announced)
        } else {
            if !(withdrawn.is_empty() && announced.is_empty()) {
                let problem = Problem::Family(Family::Ipv4Unicast.into());
                self.discard(AttributeCode::NextHop, problem);
            }
            (Vec::new(), Vec::new())
        };
        let mut gone: Vec<(Family, Vec<Nlri>)> = Vec::new();
        if !withdrawn.is_empty() {
            gone.push((Family::Ipv4Unicast, withdrawn));
        }
        let end_of_rib = self.end_of_rib(bare);
        gone.extend(
            self.unreach
                .take()
                .filter(|(_, prefixes)| !prefixes.is_empty()),
        );

        if let Some((reason, attribute)) = self.withdraw.take() {
            if !reaches {
                // RFC 7606 §5.2: no reachable prefix was found where attributes promise some, so
                // the fault may have hidden them.
                return UpdateOutcome::Reset(reason.notification(attribute));
            }
            if !announced.is_empty() {
                gone.push((Family::Ipv4Unicast, announced));
            }
            let reach = self.reach.take();
            gone.extend(reach.map(|reach| (reach.family, reach.nlri)));
            return UpdateOutcome::TreatAsWithdraw {
                withdrawn: gone,
                reason,
            };
        }
        let mut reach = Vec::new();
        if let Some(next_hop) = self.next_hop
            && !announced.is_empty()
        {
            reach.push(Reach {
                family: Family::Ipv4Unicast,
                next_hop,
                nlri: announced,
            });
        }
        if let Some(MpReach {
            family,
            next_hop: Some(next_hop),
            nlri,
        }) = self.reach.take()
            && !nlri.is_empty()
        {
            reach.push(Reach {
                family,
                next_hop,
                nlri,
            });
        }
        let discarded = std::mem::take(&mut self.discarded);
        let update = Update {
            attributes: (!reach.is_empty()).then(|| self.take_attributes()),
            reach,
            withdrawn: gone,
            end_of_rib,
        };
        if discarded.is_empty() {
            UpdateOutcome::Valid(update)
        } else {
            UpdateOutcome::ValidWithDiscards { update, discarded }
        }
    }

    /// RFC 7606 §3 (d). LOCAL_PREF is discretionary: without it the route has the default.
    fn require_mandatory(&mut self, has_nlri: bool) {
        let mandatory = [
            (AttributeCode::Origin, true),
            (AttributeCode::AsPath, true),
            (AttributeCode::NextHop, has_nlri),
        ];
        for (code, required) in mandatory {
            if required && !self.seen.contains(code.into()) {
                self.withdraw(code, Problem::Missing, &[]);
            }
        }
    }

    /// RFC 4724 §2: an UPDATE with nothing in it, or with nothing but an empty MP_UNREACH_NLRI.
    fn end_of_rib(&self, bare: bool) -> Option<Family> {
        if bare {
            return self.carried_family(Family::Ipv4Unicast.into());
        }
        match &self.unreach {
            Some((family, prefixes)) if prefixes.is_empty() && self.seen.count == 1 => {
                Some(*family)
            }
            _ => None,
        }
    }

    /// The attributes, with what a two-octet speaker put beside them merged in.
    fn take_attributes(&mut self) -> PathAttributes {
        let mut attributes = std::mem::take(&mut self.attributes);
        if !self.unknown.is_empty() {
            attributes.set_unknown(std::mem::take(&mut self.unknown));
        }
        let aggregator = attributes.aggregator();
        let aggregated_by_trans = aggregator.is_none_or(|by| by.asn == Asn::TRANS);
        if self.as4_aggregator.is_some() && !aggregated_by_trans {
            // RFC 6793 §4.2.3: a two-octet speaker aggregated after AS4_* were written; both are
            // out of date.
            return attributes;
        }
        if aggregator.is_some() && self.as4_aggregator.is_some() {
            attributes.set_aggregator(self.as4_aggregator);
        }
        if let Some(as4_path) = &self.as4_path {
            attributes.as_path = merged(&attributes.as_path, as4_path);
        }
        attributes
    }
}

/// RFC 6793 §4.2.3: the tail of AS_PATH that AS4_PATH describes is replaced by it.
fn merged(as_path: &AsPath, as4_path: &AsPath) -> AsPath {
    match as_path.len().checked_sub(as4_path.len()) {
        // AS4_PATH is longer than the path itself: it is to be ignored.
        None => as_path.clone(),
        Some(head) => AsPath::new([&as_path.asns()[..head], as4_path.asns()].concat()),
    }
}

fn split_attribute(area: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let [flags, code, tail @ ..] = area else {
        return None;
    };
    let (length, tail) = if flags & flags::EXTENDED_LENGTH == 0 {
        let (length, tail) = tail.split_first()?;
        (usize::from(*length), tail)
    } else {
        let (length, tail) = tail.split_first_chunk()?;
        (usize::from(u16::from_be_bytes(*length)), tail)
    };
    let (value, tail) = tail.split_at_checked(length)?;
    let attribute = Attribute {
        flags: *flags,
        code: (*code).into(),
        value,
        whole: &area[..area.len() - tail.len()],
    };
    Some((attribute, tail))
}

const WELL_KNOWN: u8 = flags::TRANSITIVE;
const NON_TRANSITIVE: u8 = flags::OPTIONAL;
const TRANSITIVE: u8 = flags::OPTIONAL | flags::TRANSITIVE;

/// Optional and Transitive bits that a type prescribes; `None` for types that we do not know.
fn expected_flags(code: AttributeCode) -> Option<u8> {
    Some(match code {
        AttributeCode::Origin
        | AttributeCode::AsPath
        | AttributeCode::NextHop
        | AttributeCode::LocalPref
        | AttributeCode::AtomicAggregate => WELL_KNOWN,
        AttributeCode::Med
        | AttributeCode::OriginatorId
        | AttributeCode::ClusterList
        | AttributeCode::MpReach
        | AttributeCode::MpUnreach
        | AttributeCode::Aigp
        | AttributeCode::LinkState => NON_TRANSITIVE,
        AttributeCode::Aggregator
        | AttributeCode::Communities
        | AttributeCode::ExtCommunities
        | AttributeCode::As4Path
        | AttributeCode::As4Aggregator
        | AttributeCode::PmsiTunnel
        | AttributeCode::TunnelEncapsulation
        | AttributeCode::Ipv6ExtCommunities
        | AttributeCode::LargeCommunities
        | AttributeCode::OnlyToCustomer
        | AttributeCode::PrefixSid => TRANSITIVE,
        AttributeCode::Unknown(_) => return None,
    })
}

/// RFC 4271 §4.3: the Partial bit must be clear on all that is not optional and transitive.
fn flags_agree(actual: u8, expected: u8) -> bool {
    let partial_allowed = expected == TRANSITIVE;
    kind(actual) == expected && (partial_allowed || actual & flags::PARTIAL == 0)
}

/// The bits that say which kind an attribute is of.
fn kind(actual: u8) -> u8 {
    actual & (flags::OPTIONAL | flags::TRANSITIVE)
}

/// Whether a fault costs the attribute alone (RFC 7606 §2). A set costs the route wherever it
/// stands (RFC 9774 §3).
fn discardable(code: AttributeCode, problem: &Problem) -> bool {
    code.is_informational() && *problem != Problem::AsSet
}
