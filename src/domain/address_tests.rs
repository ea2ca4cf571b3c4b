//! What may be dialled: every range at its edges, every embedding, every grant.

use AddressKind::*;
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn kind(text: &str) -> Option<AddressKind> {
    refusal(ip(text))
}

fn rule(granted: &[&str]) -> AddressRule {
    AddressRule::new(granted.iter().map(|text| text.parse().expect(text)).collect())
}

/// Each range's first and last address, and the neighbours outside with what they are.
#[test]
fn ranges_end_where_they_should() {
    type Row = (&'static str, &'static str, AddressKind, Option<AddressKind>, Option<AddressKind>);
    const ROWS: &[Row] = &[
        ("0.0.0.0", "0.255.255.255", Unspecified, None, None),
        ("10.0.0.0", "10.255.255.255", Private, None, None),
        ("100.64.0.0", "100.100.100.199", CarrierNat, None, Some(Metadata)),
        ("100.100.100.200", "100.100.100.200", Metadata, Some(CarrierNat), Some(CarrierNat)),
        ("100.100.100.201", "100.127.255.255", CarrierNat, Some(Metadata), None),
        ("127.0.0.0", "127.255.255.255", Loopback, None, None),
        ("168.63.129.16", "168.63.129.16", Metadata, None, None),
        ("169.254.0.0", "169.254.169.253", LinkLocal, None, Some(Metadata)),
        ("169.254.169.254", "169.254.169.254", Metadata, Some(LinkLocal), Some(LinkLocal)),
        ("169.254.170.2", "169.254.170.2", Metadata, Some(LinkLocal), Some(LinkLocal)),
        ("169.254.170.23", "169.254.170.23", Metadata, Some(LinkLocal), Some(LinkLocal)),
        ("169.254.170.24", "169.254.255.255", LinkLocal, Some(Metadata), None),
        ("172.16.0.0", "172.31.255.255", Private, None, None),
        ("192.0.0.0", "192.0.0.255", Reserved, None, None),
        ("192.0.2.0", "192.0.2.255", Documentation, None, None),
        ("192.88.99.0", "192.88.99.255", Reserved, None, None),
        ("192.168.0.0", "192.168.255.255", Private, None, None),
        ("198.18.0.0", "198.19.255.255", Benchmark, None, None),
        ("198.51.100.0", "198.51.100.255", Documentation, None, None),
        ("203.0.113.0", "203.0.113.255", Documentation, None, None),
        ("224.0.0.0", "239.255.255.255", Multicast, None, Some(Reserved)),
        ("240.0.0.0", "255.255.255.254", Reserved, Some(Multicast), Some(Broadcast)),
        ("255.255.255.255", "255.255.255.255", Broadcast, Some(Reserved), None),
        ("::", "::", Unspecified, None, Some(Loopback)),
        ("::1", "::1", Loopback, Some(Unspecified), Some(Unspecified)),
        ("64:ff9b::7f00:0", "64:ff9b::7fff:ffff", Loopback, None, None),
        (
            "64:ff9b:0:0:0:1::",
            "64:ff9b:0:ffff:ffff:ffff:ffff:ffff",
            Reserved,
            Some(Broadcast),
            Some(Unspecified),
        ),
        ("64:ff9b:1::7f00:0", "64:ff9b:1::7fff:ffff", Loopback, None, None),
        ("64:ff9b:1:0:0:1::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, Some(Broadcast), None),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", Benchmark, Some(Reserved), Some(Reserved)),
        ("2001:2:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, Some(Benchmark), None),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Documentation, None, None),
        ("2002:a00::", "2002:aff:ffff:ffff:ffff:ffff:ffff:ffff", Private, None, None),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Documentation, None, None),
        ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved, None, Some(Private)),
        ("fc00::", "fd00:ec2::22", Private, Some(Reserved), Some(Metadata)),
        ("fd00:ec2::23", "fd00:ec2::23", Metadata, Some(Private), Some(Private)),
        ("fd00:ec2::254", "fd00:ec2::254", Metadata, Some(Private), Some(Private)),
        ("fd20:ce::254", "fd20:ce::254", Metadata, Some(Private), Some(Private)),
        ("fd20:ce::255", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private, Some(Metadata), Some(Reserved)),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LinkLocal, Some(Reserved), Some(Reserved)),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast, Some(Reserved), None),
    ];
    for (first, last, inside, before, after) in ROWS {
        assert_eq!(kind(first), Some(*inside), "{first}");
        assert_eq!(kind(last), Some(*inside), "{last}");
        if let Some(neighbour) = moved(ip(first), -1) {
            assert_eq!(refusal(neighbour), *before, "{neighbour}, before {first}");
        }
        if let Some(neighbour) = moved(ip(last), 1) {
            assert_eq!(refusal(neighbour), *after, "{neighbour}, after {last}");
        }
    }
}

/// The address next to one, in its own family.
fn moved(address: IpAddr, by: i32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            u32::from(address).checked_add_signed(by).map(|bits| Ipv4Addr::from(bits).into())
        }
        IpAddr::V6(address) => {
            u128::from(address).checked_add_signed(by.into()).map(|bits| Ipv6Addr::from(bits).into())
        }
    }
}

#[test]
fn public_addresses_are_public() {
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2a00::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "64:ff9b:1::8.8.8.8",
        "2002:808:808::1",
        "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
    ] {
        assert_eq!(kind(public), None, "{public}");
        assert_eq!(rule(&[]).may_dial(ip(public)), Ok(()), "{public}");
    }
}

#[test]
fn what_is_not_public_is_refused_in_every_clothing() {
    // reliability 4d.48
    for (address, expected) in [
        ("127.0.0.1", Loopback),
        ("::1", Loopback),
        ("::ffff:127.0.0.1", Loopback),
        ("0.0.0.0", Unspecified),
        ("10.1.2.3", Private),
        ("100.64.0.1", CarrierNat),
        ("fd00::1", Private),
        ("fe80::1", LinkLocal),
        ("64:ff9b::7f00:1", Loopback),
        ("169.254.169.254", Metadata),
        ("fd00:ec2::254", Metadata),
        ("100.100.100.200", Metadata),
        ("::127.0.0.1", Loopback),
        ("::ffff:169.254.169.254", Metadata),
        ("64:ff9b::169.254.169.254", Metadata),
        ("64:ff9b:1::169.254.169.254", Metadata),
        ("64:ff9b:1:7f00:0:100::", Reserved),
        ("::ffff:0:127.0.0.1", Reserved),
        ("2002:7f00:1::", Loopback),
        ("2002:a9fe:a9fe::1", Metadata),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", Loopback),
        ("2001:0:a00:1:8000:63bf:f7f7:f7f7", Private),
        ("fec0::1", Reserved),
    ] {
        assert_eq!(kind(address), Some(expected), "{address}");
        let denied = DeniedAddress { address: ip(address), kind: expected };
        assert_eq!(rule(&[]).may_dial(ip(address)), Err(denied), "{address}");
    }
}

proptest! {
    /// Whatever holds an IPv4 address inside is judged as that address.
    #[test]
    fn an_embedded_address_is_judged_as_itself(bits: u32) {
        let plain = Ipv4Addr::from(bits);
        let judged = refusal(plain.into());
        prop_assert_eq!(refusal(plain.to_ipv6_mapped().into()), judged);
        if bits > 1 {
            prop_assert_eq!(refusal(plain.to_ipv6_compatible().into()), judged);
        }
        let (high, low) = ((bits >> 16) as u16, bits as u16);
        for embedding in [
            [0x64, 0xff9b, 0, 0, 0, 0, high, low],
            [0x64, 0xff9b, 1, 0, 0, 0, high, low],
            [0x2002, high, low, 0, 0, 0, 0, 1],
            [0x2001, 0, 0x808, 0x808, 0, 0, !high, !low],
            [0x2001, 0, high, low, 0, 0, 0xf7f7, 0xf7f7],
        ] {
            prop_assert_eq!(refusal(Ipv6Addr::from(embedding).into()), judged);
        }
    }

    /// The standard library's narrower tests never call dialable what it knows to be local.
    #[test]
    fn nothing_local_is_public(v4: u32, v6: u128, low in 0_u128..1 << 48) {
        let address = Ipv4Addr::from(v4);
        let local = address.is_private() || address.is_loopback() || address.is_link_local()
            || address.is_broadcast() || address.is_documentation() || address.is_multicast();
        prop_assert!(!local || refusal(address.into()).is_some());
        for address in [Ipv6Addr::from(v6), Ipv6Addr::from(low), Ipv6Addr::from(v6 | 0xfc << 120)] {
            let local = address.is_loopback() || address.is_unique_local() || address.is_multicast()
                || address.is_unicast_link_local() || address.is_unspecified();
            prop_assert!(!local || refusal(address.into()).is_some());
        }
    }

    /// What a range is written as reads back as the same range, and holds its own address.
    #[test]
    fn a_range_reads_back(v4: u32, v4_length in 0_u8..=32, v6: u128, v6_length in 0_u8..=128) {
        let four = IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from(v4), v4_length)).trunc();
        let six = IpNet::from(Ipv6Net::new_assert(Ipv6Addr::from(v6), v6_length)).trunc();
        for range in [AddressRange(four), AddressRange(six)] {
            let text = serde_json::to_string(&range).expect("text");
            prop_assert_eq!(serde_json::from_str::<AddressRange>(&text).expect("a range"), range);
            prop_assert_eq!(AddressRange::read(&range.write()), Ok(range));
            prop_assert!(range.holds(range.0.addr()));
        }
    }

    #[test]
    fn no_text_panics(text in "[0-9a-f.:/ ]{0,24}") {
        if let Ok(range) = text.parse::<AddressRange>() {
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}

#[test]
fn a_grant_opens_its_range_and_nothing_beside_it() {
    let lan = rule(&["10.1.0.0/16", "::1"]);
    for granted in ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3", "::1", "8.8.8.8"] {
        assert_eq!(lan.may_dial(ip(granted)), Ok(()), "{granted}");
    }
    // The same IPv4 address behind a translator is another machine's network: it needs a grant of its own.
    for denied in
        ["10.0.255.255", "10.2.0.0", "127.0.0.1", "64:ff9b::10.1.2.3", "2002:a01:203::", "::10.1.2.3"]
    {
        assert!(lan.may_dial(ip(denied)).is_err(), "{denied}");
    }
    assert_eq!(rule(&["64:ff9b::/96"]).may_dial(ip("64:ff9b::10.1.2.3")), Ok(()));
    // A grant of all IPv6 is none of IPv4, whatever the spelling.
    assert!(rule(&["::/0"]).may_dial(ip("::ffff:10.1.2.3")).is_err());
    assert_eq!(rule(&["0.0.0.0/0"]).may_dial(ip("::ffff:10.1.2.3")), Ok(()));
}

#[test]
fn a_metadata_address_is_granted_only_by_itself() {
    for (around, exact, address) in [
        ("169.254.0.0/16", "169.254.169.254/32", "169.254.169.254"),
        ("169.254.169.254/31", "169.254.169.254", "::ffff:169.254.169.254"),
        ("100.64.0.0/10", "100.100.100.200", "100.100.100.200"),
        ("fd00::/8", "fd00:ec2::254/128", "fd00:ec2::254"),
        ("64:ff9b::/96", "64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe"),
    ] {
        assert!(rule(&[around, "0.0.0.0/0", "::/0"]).may_dial(ip(address)).is_err(), "{address}");
        assert_eq!(rule(&[exact]).may_dial(ip(address)), Ok(()), "{address}");
    }
}

#[test]
fn errors_say_what_to_write() {
    let denied = |address| rule(&[]).may_dial(ip(address)).expect_err(address).to_string();
    assert_eq!(
        denied("::ffff:127.0.0.1"),
        "the address ::ffff:127.0.0.1 is not public (loopback): it is dialled only if the peer's \
         allowed_addresses has a range that holds it, such as \"127.0.0.1/32\""
    );
    assert_eq!(
        denied("fd00:ec2::254"),
        "the address fd00:ec2::254 is not public (metadata): it is dialled only if the peer's \
         allowed_addresses names exactly \"fd00:ec2::254/128\""
    );

    let refused = |text: &str| text.parse::<AddressRange>().expect_err(text).to_string();
    assert!(refused("10.1.2.3/8").ends_with("write \"10.0.0.0/8\", or a longer prefix"));
    assert!(refused("::ffff:10.0.0.0/104").contains("write it as IPv4"));
    assert!(refused("::ffff:10.0.0.1").contains("write it as IPv4"));
    for bad in [
        "",
        "/",
        "10/8",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "010.0.0.0/8",
        "host/8",
        "10.0.0.0/",
        " 10.0.0.0/8",
        "fe80::%1/64",
        "10.0.0.0/8/8",
        "10.0.0.0/0008",
        "10.0.0.0 10.0.0.1",
    ] {
        assert!(refused(bad).contains("such as \"10.0.0.0/8\""), "{bad:?}");
    }
    assert_eq!(
        "10.1.2.3".parse::<AddressRange>().map(|range| range.to_string()),
        Ok("10.1.2.3/32".to_owned())
    );
}
