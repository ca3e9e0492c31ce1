use super::*;

/// Blocks that are not global, as their first and their last address.
const BLOCKS: &[(&str, &str)] = &[
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("168.63.129.16", "168.63.129.16"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "255.255.255.255"),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

/// What embeds an address of IPv4 in one of IPv6.
fn embedded(address: Ipv4Addr) -> [Ipv6Addr; 3] {
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    [
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, high, low),
        Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
    ]
}

fn before(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_sub(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_sub(1)?).into(),
    })
}

fn after(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).checked_add(1)?).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).checked_add(1)?).into(),
    })
}

/// Whether an address may be called, by itself and by the URL that has it.
fn may_be_called(address: IpAddr) -> bool {
    let url = match address {
        IpAddr::V4(address) => format!("https://{address}/x"),
        IpAddr::V6(address) => format!("https://[{address}]/x"),
    };
    let by_url = Rules::default().check(&url);
    assert_eq!(by_url.is_ok(), is_global(address), "{url}");
    assert!(by_url.is_ok() || by_url == Err(Refusal::Host), "{url}");
    is_global(address)
}

#[test]
fn each_boundary_is_where_it_is() {
    let mut cases = 0;
    let mut check = |address: IpAddr, is_allowed: bool| {
        assert_eq!(may_be_called(address), is_allowed, "{address}");
        cases += 1;
        if let IpAddr::V4(address) = address {
            for address in embedded(address) {
                assert_eq!(may_be_called(address.into()), is_allowed, "{address}");
                cases += 1;
            }
        }
    };
    for (first, last) in BLOCKS {
        let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
        check(first, false);
        check(last, false);
        // 2000:ffff:… and what follows 3fff::/20 are global, as are the neighbours of all blocks of IPv4.
        if let Some(before) = before(first) {
            check(before, true);
        }
        if let Some(after) =
            after(last).filter(|after| *after != "4000::".parse::<IpAddr>().unwrap())
        {
            check(after, true);
        }
    }
    for (address, is_allowed) in [
        ("::", false),
        ("::1", false),
        ("::127.0.0.1", false),
        ("::8.8.8.8", false),
        ("::ffff:0:8.8.8.8", false),
        ("64:ff9b:1::8.8.8.8", false),
        ("100::1", false),
        ("1fff:ffff::", false),
        ("2000::", true),
        ("2001:200::", true),
        ("2606:4700:4700::1111", true),
        ("4000::", false),
        ("5f00::1", false),
        ("fc00::1", false),
        ("fd00:ec2::254", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
        ("8.8.8.8", true),
        ("1.1.1.1", true),
    ] {
        check(address.parse().unwrap(), is_allowed);
    }
    assert!(cases > 200, "{cases}");
}

#[test]
fn an_address_is_one_however_it_is_written() {
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "0x7f.0x0.0x0.0x1",
        "00000177.1",
        "127.0.0.1.",
        "127。0。0。1",
        "127．0．0．1",
        "①②⑦.0.0.1",
        "%31%32%37.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0",
        "[fd00:ec2::254]",
    ] {
        let url = format!("https://{host}/latest");
        assert_eq!(Rules::default().check(&url), Err(Refusal::Host), "{host}");
        let all = Rules { allows_private: true, ..Rules::default() };
        assert!(all.check(&url).is_ok(), "{host}");
    }
}

#[test]
fn a_url_has_no_more_than_it_needs() {
    use Refusal::{Host, Parts, Port, Scheme, Unreadable};
    for (url, refusal) in [
        ("https://a.example/x?y=z", None),
        ("https://a.example:443", None),
        ("https://a.example:8443", None),
        ("https://b\u{fc}cher.example/", None),
        ("http://a.example/", Some(Scheme)),
        ("ftp://a.example/", Some(Scheme)),
        ("file:///etc/passwd", Some(Scheme)),
        ("gopher://a.example/", Some(Scheme)),
        ("javascript:alert(1)", Some(Scheme)),
        ("https://u@a.example/", Some(Parts)),
        ("https://u:p@a.example/", Some(Parts)),
        ("https://:p@a.example/", Some(Parts)),
        ("https://a.example/#x", Some(Parts)),
        ("https://a.example/#", Some(Parts)),
        ("https://a.example:22/", Some(Port)),
        ("https://a.example:80/", Some(Port)),
        ("https://a.example:0/", Some(Port)),
        ("https://a.example:99999/", Some(Unreadable)),
        ("https://[fe80::1%25eth0]/", Some(Unreadable)),
        ("https://[::1/", Some(Unreadable)),
        ("https://256.256.256.256/", Some(Unreadable)),
        ("https:///", Some(Unreadable)),
        ("//a.example/", Some(Unreadable)),
        ("a.example", Some(Unreadable)),
        ("", Some(Unreadable)),
        ("https://10.0.0.1/", Some(Host)),
    ] {
        assert_eq!(Rules::default().check(url).err(), refusal, "{url}");
    }
    let open = Rules { allows_http: true, allows_private: true, ports: Vec::new() };
    assert!(open.check("http://127.0.0.1:4711/x").is_ok());
    assert_eq!(open.check("ftp://127.0.0.1/"), Err(Scheme));
}
