//! Which URLs and which addresses may be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Special-purpose blocks of IPv4 ([IANA](https://www.iana.org/assignments/iana-ipv4-special-registry)), multicast,
/// and the one public address that is a cloud's own.
const NOT_GLOBAL_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([168, 63, 129, 16], 32),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// The blocks of IPv6 that lead to an address of IPv4, and at which bit that begins.
const EMBEDDED_V4: [([u16; 6], u32, u32); 3] = [
    // Mapped, NAT64, 6to4.
    ([0, 0, 0, 0, 0, 0xFFFF], 96, 96),
    ([0x64, 0xFF9B, 0, 0, 0, 0], 96, 96),
    ([0x2002, 0, 0, 0, 0, 0], 16, 16),
];

/// What of `2000::/3` is not global ([IANA](https://www.iana.org/assignments/iana-ipv6-special-registry)). Nothing beside
/// that is.
const NOT_GLOBAL_V6: [([u16; 2], u32); 3] =
    [([0x2001, 0], 23), ([0x2001, 0xDB8], 32), ([0x3FFF, 0], 20)];

/// Whether an address is one of the public internet.
pub(super) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    let is_in = |(block, length): &([u8; 4], u32)| {
        (bits ^ u32::from(Ipv4Addr::from(*block))) >> (32 - length) == 0
    };
    !NOT_GLOBAL_V4.iter().any(is_in)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let bits = u128::from(address);
    let is_in = |block: &[u16], length: u32| {
        let mut segments = [0; 8];
        segments[..block.len()].copy_from_slice(block);
        (bits ^ u128::from(Ipv6Addr::from(segments))) >> (128 - length) == 0
    };
    for (block, length, begin) in EMBEDDED_V4 {
        if is_in(&block, length) {
            // The 32 bits from there on.
            let embedded = (bits << begin) >> 96;
            return u32::try_from(embedded).is_ok_and(|bits| is_global_v4(bits.into()));
        }
    }
    is_in(&[0x2000], 3) && !NOT_GLOBAL_V6.iter().any(|(block, length)| is_in(block, *length))
}

/// Why a URL is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("The callback's URL cannot be read.")]
    Unreadable,
    #[error("The callback's URL must begin with https://.")]
    Scheme,
    #[error("The callback's URL may have no user name and no fragment.")]
    Parts,
    #[error("The callback's URL names a port that is not called.")]
    Port,
    #[error("The callback's URL names a host that is not called.")]
    Host,
}

/// What may be called.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) allows_http: bool,
    pub(super) allows_private: bool,
    pub(super) ports: Vec<u16>,
}

impl Rules {
    pub(super) const PORTS: [u16; 2] = [443, 8443];

    /// The URL of that text, if it may be called as far as it tells by itself. Whatever way the text writes an
    /// address (decimal, octal, short, with other dots), the URL has the address.
    pub(super) fn check(&self, text: &str) -> Result<Url, Refusal> {
        let url = Url::parse(text).map_err(|_| Refusal::Unreadable)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && self.allows_http) {
            return Err(Refusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(Refusal::Parts);
        }
        if !url.port_or_known_default().is_some_and(|port| self.allows_port(port)) {
            return Err(Refusal::Port);
        }
        // A client asks no resolver about an address, so it is looked at here.
        let may_be_called = match url.host() {
            None => false,
            Some(Host::Domain(name)) => !name.is_empty(),
            Some(Host::Ipv4(address)) => self.allows(address.into()),
            Some(Host::Ipv6(address)) => self.allows(address.into()),
        };
        if may_be_called { Ok(url) } else { Err(Refusal::Host) }
    }

    pub(super) fn allows(&self, address: IpAddr) -> bool {
        self.allows_private || is_global(address)
    }

    fn allows_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { allows_http: false, allows_private: false, ports: Self::PORTS.to_vec() }
    }
}

#[cfg(test)]
mod tests;
