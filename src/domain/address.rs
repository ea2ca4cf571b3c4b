//! Which IP addresses a gateway may dial: public ones, and of the others those the peer's entry grants.
//!
//! Invariant: an address that holds an IPv4 address inside is judged by the address inside, and what is not
//! known to be public is not.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::units::{TextForm, quoted};

/// A range of IP addresses, written `10.0.0.0/8`, `fd00::/8`, or `10.1.2.3` for a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange(IpNet);

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddressRange {
    /// Not address and prefix length.
    #[error(
        "{0} is not a range of IP addresses: write an address and a prefix length, such as \"10.0.0.0/8\" or \
         \"fd00::/8\", or a single address"
    )]
    NotARange(String),
    /// More bits than the prefix has.
    #[error("{given} has bits set beyond its prefix: write \"{meant}\", or a longer prefix")]
    HostBits {
        /// The text.
        given: String,
        /// The range the address lies in.
        meant: AddressRange,
    },
    /// An IPv4 range in IPv6 clothes.
    #[error("{0} is a range of IPv4 addresses written as IPv6: write it as IPv4, such as \"10.0.0.0/8\"")]
    Mapped(String),
}

impl AddressRange {
    /// True when `address` lies in this range. An IPv4-mapped address is the IPv4 address.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    fn is_single(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        AddressRange(address.to_canonical().into())
    }
}

impl FromStr for AddressRange {
    type Err = InvalidAddressRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = read_range(text).ok_or_else(|| InvalidAddressRange::NotARange(quoted(text)))?;
        if range.addr() != range.network() {
            let meant = AddressRange(range.trunc());
            return Err(InvalidAddressRange::HostBits { given: quoted(text), meant });
        }
        match range {
            IpNet::V6(range) if MAPPED.contains(&range) => Err(InvalidAddressRange::Mapped(quoted(text))),
            range => Ok(AddressRange(range)),
        }
    }
}

fn read_range(text: &str) -> Option<IpNet> {
    let Some((address, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    };
    let digits = (1..=3).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.then(|| length.parse().ok()).flatten()?;
    IpNet::new(address.parse().ok()?, length).ok()
}

impl fmt::Display for AddressRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl TextForm for AddressRange {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: InvalidAddressRange| error.to_string())
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Serialize for AddressRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AddressRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why an address is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressKind {
    /// This machine.
    Loopback,
    /// A private network.
    Private,
    /// This link.
    LinkLocal,
    /// Where a cloud hands out credentials.
    Metadata,
    /// A carrier's network behind its NAT.
    CarrierNat,
    /// No address, or this network.
    Unspecified,
    /// A group of machines.
    Multicast,
    /// Every machine of a network.
    Broadcast,
    /// For examples only.
    Documentation,
    /// For measurements only.
    Benchmark,
    /// Not given to anyone for public use.
    Reserved,
}

impl AddressKind {
    /// The name in logs, audit records and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            AddressKind::Loopback => "loopback",
            AddressKind::Private => "private",
            AddressKind::LinkLocal => "link_local",
            AddressKind::Metadata => "metadata",
            AddressKind::CarrierNat => "carrier_nat",
            AddressKind::Unspecified => "unspecified",
            AddressKind::Multicast => "multicast",
            AddressKind::Broadcast => "broadcast",
            AddressKind::Documentation => "documentation",
            AddressKind::Benchmark => "benchmark",
            AddressKind::Reserved => "reserved",
        }
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(first: u16, second: u16, third: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0), length)
}

/// IPv4 addresses written as IPv6.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

/// The only part of IPv6 that is given out for public use.
const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Where clouds hand out credentials: the instance, container and pod services of AWS, those of Google,
/// Azure and Oracle at the first address, Alibaba's, and Azure's own at an otherwise public address.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same in IPv6: AWS instances, AWS pods, Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// IPv4 ranges that are not public; the first that holds an address names its kind.
const NOT_PUBLIC_V4: [(Ipv4Net, AddressKind); 16] = [
    (v4(0, 0, 0, 0, 8), AddressKind::Unspecified),
    (v4(10, 0, 0, 0, 8), AddressKind::Private),
    (v4(100, 64, 0, 0, 10), AddressKind::CarrierNat),
    (v4(127, 0, 0, 0, 8), AddressKind::Loopback),
    (v4(169, 254, 0, 0, 16), AddressKind::LinkLocal),
    (v4(172, 16, 0, 0, 12), AddressKind::Private),
    (v4(192, 0, 0, 0, 24), AddressKind::Reserved),
    (v4(192, 0, 2, 0, 24), AddressKind::Documentation),
    (v4(192, 88, 99, 0, 24), AddressKind::Reserved),
    (v4(192, 168, 0, 0, 16), AddressKind::Private),
    (v4(198, 18, 0, 0, 15), AddressKind::Benchmark),
    (v4(198, 51, 100, 0, 24), AddressKind::Documentation),
    (v4(203, 0, 113, 0, 24), AddressKind::Documentation),
    (v4(224, 0, 0, 0, 4), AddressKind::Multicast),
    (v4(255, 255, 255, 255, 32), AddressKind::Broadcast),
    (v4(240, 0, 0, 0, 4), AddressKind::Reserved),
];

/// IPv6 ranges that are not public; the first that holds an address names its kind.
const NOT_PUBLIC_V6: [(Ipv6Net, AddressKind); 7] = [
    (v6(0xfc00, 0, 0, 7), AddressKind::Private),
    (v6(0xfe80, 0, 0, 10), AddressKind::LinkLocal),
    (v6(0xff00, 0, 0, 8), AddressKind::Multicast),
    (v6(0x2001, 0x2, 0, 48), AddressKind::Benchmark),
    (v6(0x2001, 0, 0, 23), AddressKind::Reserved),
    (v6(0x2001, 0xdb8, 0, 32), AddressKind::Documentation),
    (v6(0x3fff, 0, 0, 20), AddressKind::Documentation),
];

/// Why `address` is not public, or nothing when it is.
pub fn refusal(address: IpAddr) -> Option<AddressKind> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<AddressKind> {
    if METADATA_V4.contains(&address) {
        return Some(AddressKind::Metadata);
    }
    NOT_PUBLIC_V4.iter().find(|(range, _)| range.contains(&address)).map(|(_, kind)| *kind)
}

fn refusal_v6(address: Ipv6Addr) -> Option<AddressKind> {
    if METADATA_V6.contains(&address) {
        return Some(AddressKind::Metadata);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(AddressKind::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(AddressKind::Loopback),
        // IPv4-mapped, IPv4-compatible, NAT64. Elsewhere in 64:ff9b:1::/48 the place of the IPv4 address
        // depends on the site's prefix, so nothing there counts as public.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, 0, 0, 0, high, low] => refusal_v4(joined(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => refusal_v4(joined(high, low)),
        // Teredo: the client, inverted, and the server that introduces it; both get packets.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            refusal_v4(joined(!high, !low)).or_else(|| refusal_v4(joined(server_high, server_low)))
        }
        _ => match NOT_PUBLIC_V6.iter().find(|(range, _)| range.contains(&address)) {
            Some((_, kind)) => Some(*kind),
            None if GLOBAL_UNICAST.contains(&address) => None,
            None => Some(AddressKind::Reserved),
        },
    }
}

fn joined(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// What one peer's entry grants beyond the public addresses; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRule {
    granted: Vec<AddressRange>,
    any: bool,
}

/// An address that is neither public nor granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedAddress {
    /// The address.
    pub address: IpAddr,
    /// Why it is not public.
    pub kind: AddressKind,
}

impl AddressRule {
    /// Grants `granted`, the `allowed_addresses` of a peer.
    pub fn new(granted: Vec<AddressRange>) -> Self {
        AddressRule { granted, any: false }
    }

    /// Grants every address: profile dev.
    pub fn any() -> Self {
        AddressRule { granted: Vec::new(), any: true }
    }

    /// Decides whether a connection to `address` may be made. A metadata address is granted only by itself,
    /// never by a range around it.
    pub fn may_dial(&self, address: IpAddr) -> Result<(), DeniedAddress> {
        let Some(kind) = refusal(address).filter(|_| !self.any) else { return Ok(()) };
        let enough = |range: &AddressRange| kind != AddressKind::Metadata || range.is_single();
        if self.granted.iter().any(|range| range.holds(address) && enough(range)) {
            return Ok(());
        }
        Err(DeniedAddress { address, kind })
    }
}

impl fmt::Display for DeniedAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeniedAddress { address, kind } = self;
        let grant = AddressRange::from(*address);
        write!(out, "the address {address} is not public ({kind}): it is dialled only if the peer's ")?;
        match kind {
            AddressKind::Metadata => write!(out, "allowed_addresses names exactly \"{grant}\""),
            _ => write!(out, "allowed_addresses has a range that holds it, such as \"{grant}\""),
        }
    }
}

impl std::error::Error for DeniedAddress {}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
