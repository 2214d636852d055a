//! Reasons of conditions. They are stable: alerts and scripts match on them.

/// As it should be.
pub const OK: &str = "Ok";

/// Another pool claims some of the same addresses and was there first.
pub const OVERLAPS_POOL: &str = "OverlapsPool";
/// No other pool claims any of the addresses.
pub const NO_OVERLAP: &str = "NoOverlap";
/// `spec.disabled` is set: no new blocks.
pub const DISABLED: &str = "Disabled";
/// A reserved range lies outside every subnet of the pool.
pub const RESERVED_OUTSIDE_POOL: &str = "ReservedOutsidePool";
/// A selector does not parse.
pub const INVALID_SELECTOR: &str = "InvalidSelector";
/// The specification cannot be used; the message says which field and why.
pub const INVALID_SPEC: &str = "InvalidSpec";
/// Every block of the pool is held or resting.
pub const NO_FREE_BLOCKS: &str = "NoFreeBlocks";
/// The pool has blocks to grant.
pub const BLOCKS_AVAILABLE: &str = "BlocksAvailable";
/// The object is deleted and waits for what depends on it.
pub const DELETION_REQUESTED: &str = "DeletionRequested";

/// The request was answered with blocks.
pub const BLOCKS_GRANTED: &str = "BlocksGranted";
/// The pool named does not exist.
pub const POOL_NOT_FOUND: &str = "PoolNotFound";
/// The pool named takes no new blocks; its own conditions say why.
pub const POOL_NOT_READY: &str = "PoolNotReady";
/// The pool's node selector does not match the node.
pub const POOL_NOT_FOR_NODE: &str = "PoolNotForNode";
/// The node holds as many blocks of the pool as it may.
pub const NODE_LIMIT_REACHED: &str = "NodeLimitReached";
/// The node named does not exist, or under another UID.
pub const NODE_NOT_FOUND: &str = "NodeNotFound";

/// A node object went away; the block rests until nothing can still use it.
pub const NODE_DELETED: &str = "NodeDeleted";
/// The block's holder gave it back and announces it no more.
pub const RELEASED_BY_NODE: &str = "ReleasedByNode";

/// The session is up.
pub const ESTABLISHED: &str = "Established";
/// No attempt at a session has ended yet.
pub const CONNECTING: &str = "Connecting";
/// The peer refused the TCP connection.
pub const CONNECTION_REFUSED: &str = "ConnectionRefused";
/// Nobody answered at the peer's address in time.
pub const CONNECT_TIMEOUT: &str = "ConnectTimeout";
/// There is no way to the peer's address.
pub const UNREACHABLE: &str = "Unreachable";
/// The peer ended the connection without a word.
pub const CONNECTION_CLOSED: &str = "ConnectionClosed";
/// The connection could not be made, or it broke; the message has the system's words.
pub const CONNECTION_FAILED: &str = "ConnectionFailed";
/// The connection made way for the one that the peer had made.
pub const COLLISION_LOST: &str = "CollisionLost";
/// The peer restarted before its old connection had ended.
pub const PEER_RESTARTED: &str = "PeerRestarted";
/// The peer sent nothing for the hold time.
pub const HOLD_TIMER_EXPIRED: &str = "HoldTimerExpired";
/// The peer took nothing for the send hold time (RFC 9687).
pub const SEND_HOLD_TIMER_EXPIRED: &str = "SendHoldTimerExpired";
/// The peer ended the session with a NOTIFICATION; the message gives its code.
pub const NOTIFICATION_RECEIVED: &str = "NotificationReceived";
/// We ended the session with a NOTIFICATION; the message gives its code.
pub const NOTIFICATION_SENT: &str = "NotificationSent";
/// The peer sent more prefixes than it may.
pub const PREFIX_LIMIT_EXCEEDED: &str = "PrefixLimitExceeded";
/// The interface towards the peer has no carrier or is gone.
pub const LINK_DOWN: &str = "LinkDown";
/// BFD says that the path to the peer is dead.
pub const BFD_DOWN: &str = "BfdDown";
/// BFD has not said yet that the path to the peer is alive, and `bfd.strict` is set.
pub const AWAITS_PATH: &str = "AwaitsPath";
/// The interface on which the peer is looked for is not there, or cannot be used.
pub const INTERFACE_NOT_READY: &str = "InterfaceNotReady";
/// Nobody has been heard on the interface on which the peer is looked for.
pub const PEER_NOT_FOUND: &str = "PeerNotFound";
/// Several routers are on the interface on which the peer is looked for.
pub const SEVERAL_PEERS: &str = "SeveralPeers";
/// `spec.adminDown` is set: an operator keeps the session down.
pub const ADMIN_DOWN: &str = "AdminDown";
/// An operator asked for a new session.
pub const CLEARED: &str = "Cleared";
/// The session starts anew with another configuration.
pub const RECONFIGURED: &str = "Reconfigured";
/// The peer is no longer configured.
pub const DECONFIGURED: &str = "Deconfigured";
/// The speaker restarts.
pub const RESTARTING: &str = "Restarting";
/// No peer names this speaker.
pub const NO_PEERS: &str = "NoPeers";
/// Two peers resolve to the same address and port; the first one counts.
pub const DUPLICATE_PEER: &str = "DuplicatePeer";
/// A selector matches nothing.
pub const MATCHES_NOTHING: &str = "MatchesNothing";
/// A name refers to an object that does not exist.
pub const REFERENCE_NOT_FOUND: &str = "ReferenceNotFound";
/// A BGPFilter that a peer names does not exist; nothing passes where it would have stood.
pub const MISSING_FILTER: &str = "MissingFilter";
/// A Secret that is named does not exist; the session is held.
pub const MISSING_SECRET: &str = "MissingSecret";
/// The Secret exists without the key that is named; the session is held.
pub const MISSING_SECRET_KEY: &str = "MissingSecretKey";
/// What the Secret holds is empty or too long; the session is held.
pub const INVALID_SECRET: &str = "InvalidSecret";
/// An eBGP peer has no policy in a direction and family: nothing is exchanged there (RFC 8212).
pub const NO_POLICY: &str = "NoPolicy";
/// The kernel of the node cannot do it; the session is held.
pub const NOT_SUPPORTED_BY_KERNEL: &str = "NotSupportedByKernel";
/// The field is known and nothing acts on it in this version.
pub const NOT_IMPLEMENTED: &str = "NotImplemented";
/// Two peers claim the same connections, interface or range; the first one has them.
pub const CONFLICTING_PEER: &str = "ConflictingPeer";
