//! Addresses that belong together: one, or a block of them (CIDR, RFC 4632).

use std::{fmt, net::IpAddr, str::FromStr};

/// All addresses that begin with the same bits. An IPv4 address within IPv6 is what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address`, which is canonical, is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                shared(u128::from(first.to_bits() ^ address.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                shared(first.to_bits() ^ address.to_bits(), self.bits)
            }
            _ => false,
        }
    }

    /// Whether it is every address of its kind.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.bits == 0
    }
}

/// Whether the first `bits` of two addresses do not differ.
fn shared(difference: u128, bits: u8) -> bool {
    difference.leading_zeros() >= u32::from(bits)
}

impl FromStr for Network {
    type Err = String;

    /// As people write it; the error is what is wrong with it, in words that go on behind it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err("is neither an address nor a block of them".to_owned());
        };
        if address != address.to_canonical() {
            return Err(format!("is an IPv4 address within IPv6: write {}", address.to_canonical()));
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => match bits.parse::<u8>() {
                Ok(number) if number <= most && number.to_string() == bits => number,
                _ => return Err(format!("must have a number from 0 to {most} behind the slash")),
            },
        };
        let first = first_of(address, bits);
        if first != address {
            return Err(format!("does not begin its block: write {first}/{bits}, or {address} for it alone"));
        }
        Ok(Self { first, bits })
    }
}

/// The first address of a block.
fn first_of(address: IpAddr, bits: u8) -> IpAddr {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & mask).into()),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_its_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            let network: Network = network.parse().expect("a block");
            network.contains(address.parse::<IpAddr>().expect("an address").to_canonical())
        };
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"][..],
                &["11.0.0.0", "9.255.255.255"][..],
            ),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8", "::c000:207"]),
            ("192.0.2.6/31", &["192.0.2.6", "192.0.2.7"], &["192.0.2.5", "192.0.2.8"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1"]),
            ("2001:db8::/32", &["2001:db8::", "2001:db8:ffff::1"], &["2001:db9::", "10.0.0.1"]),
            ("2001:db8::1", &["2001:db8::1"], &["2001:db8::", "2001:db8::2"]),
            ("::/0", &["::", "2001:db8::1"], &["10.0.0.1"]),
        ] {
            inside.iter().for_each(|address| assert!(holds(network, address), "{address} in {network}"));
            outside.iter().for_each(|address| assert!(!holds(network, address), "{address} in {network}"));
        }
    }
}
