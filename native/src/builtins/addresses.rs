//! `net.cidr_*`, after OPA's `topdown/cidr.go` and the Go library beneath it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{anyhow, bail, Result};
use regorus::Value;

use super::text;

const MAX_PAIRS: usize = 10_000;

/// An address as Go keeps it: 4 bytes, also where IPv6 notation maps an IPv4 address, or 16.
#[derive(Clone, PartialEq, Eq)]
struct Address(Vec<u8>);

impl Address {
    fn parse(written: &str) -> Option<Self> {
        Some(match written.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => Self(address.octets().to_vec()),
            IpAddr::V6(address) => Self::of(address.octets().to_vec()),
        })
    }

    fn of(bytes: Vec<u8>) -> Self {
        let mapped = bytes.len() == 16 && bytes[..10].iter().all(|b| *b == 0) && bytes[10..12] == [0xff, 0xff];
        Self(if mapped { bytes[12..].to_vec() } else { bytes })
    }
}

/// A network. `bits` are those of the notation, `bytes` those of the masked address: IPv6 notation
/// of a mapped IPv4 network has 128 of the one and may have 4 of the other.
struct Network {
    address: Address,
    prefix: u32,
    bits: u32,
}

impl Network {
    fn parse(written: &str) -> Result<Self> {
        let error = || anyhow!("not an address with a prefix length: {written}");
        let (address, length) = written.split_once('/').ok_or_else(error)?;
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let prefix: u32 = length.parse().ok().filter(|_| digits).ok_or_else(error)?;
        let (bytes, bits) = match address.parse::<IpAddr>().map_err(|_| error())? {
            IpAddr::V4(address) => (address.octets().to_vec(), 32),
            IpAddr::V6(address) => (address.octets().to_vec(), 128),
        };
        if prefix > bits {
            return Err(error());
        }
        let masked = bytes.iter().zip(mask(prefix, bits)).map(|(byte, mask)| byte & mask).collect();
        Ok(Self { address: Address::of(masked), prefix, bits })
    }

    /// The mask over the bytes of the address.
    fn mask(&self) -> Vec<u8> {
        let whole = mask(self.prefix, self.bits);
        whole[whole.len().saturating_sub(self.address.0.len())..].to_vec()
    }

    fn contains(&self, other: &Address) -> bool {
        let masks = self.mask();
        self.address.0.len() == other.0.len()
            && self.address.0.iter().zip(&other.0).zip(&masks).all(|((a, b), mask)| a & mask == b & mask)
    }

    /// The last address, over all bits of the notation.
    fn last(&self) -> Address {
        let masks = mask(self.prefix, self.bits);
        let missing = masks.len().saturating_sub(self.address.0.len());
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let start = mapped[..missing.min(12)].iter().chain(&self.address.0);
        Address::of(start.zip(&masks).map(|(byte, mask)| byte | !mask).collect())
    }

    fn plain_v6(&self) -> bool {
        self.address.0.len() == 16
    }
}

fn mask(prefix: u32, bits: u32) -> Vec<u8> {
    (0..bits / 8)
        .map(|byte| u8::try_from(0xff00_u32 >> prefix.saturating_sub(byte * 8).min(8) & 0xff).unwrap_or(0))
        .collect()
}

fn contains(network: &str, other: &str) -> Result<bool> {
    let outer = Network::parse(network)?;
    if let Some(address) = Address::parse(other) {
        return Ok(outer.contains(&address));
    }
    let inner = Network::parse(other)?;
    if outer.plain_v6() && inner.plain_v6() {
        return Ok(outer.prefix <= inner.prefix && outer.contains(&inner.address));
    }
    Ok(outer.contains(&inner.address) && outer.contains(&inner.last()))
}

pub fn cidr_contains(params: &[Value]) -> Result<Value> {
    Ok(Value::Bool(contains(text(params, 0)?, text(params, 1)?)?))
}

pub fn cidr_intersects(params: &[Value]) -> Result<Value> {
    let (first, second) = (Network::parse(text(params, 0)?)?, Network::parse(text(params, 1)?)?);
    Ok(Value::Bool(first.contains(&second.address) || second.contains(&first.address)))
}

pub fn cidr_is_valid(params: &[Value]) -> Result<Value> {
    Ok(Value::Bool(text(params, 0).is_ok_and(|written| Network::parse(written).is_ok())))
}

/// Pairs of what contains and what is contained: a text stands for itself, an element of an array
/// for its index, of an object for its key; an element may be an array that begins with the text.
pub fn cidr_contains_matches(params: &[Value]) -> Result<Value> {
    let [first, second] = params else { bail!("two arguments are taken") };
    let mut found = BTreeSet::new();
    let (outer, inner) = (entries(first)?, entries(second)?);
    if outer.len().saturating_mul(inner.len()) > MAX_PAIRS {
        bail!("at most {MAX_PAIRS} pairs are compared: one built-in call cannot be interrupted");
    }
    for (network, index) in &outer {
        for (other, key) in &inner {
            if contains(network, other)? {
                found.insert(Value::from(vec![index.clone(), key.clone()]));
            }
        }
    }
    Ok(Value::from(found))
}

fn entries(value: &Value) -> Result<Vec<(&str, Value)>> {
    match value {
        Value::String(written) => Ok(vec![(written.as_ref(), value.clone())]),
        Value::Array(items) => {
            items.iter().enumerate().map(|(i, item)| Ok((network_of(item)?, Value::from(i)))).collect()
        }
        Value::Set(items) => items.iter().map(|item| Ok((network_of(item)?, item.clone()))).collect(),
        Value::Object(items) => items.iter().map(|(key, item)| Ok((network_of(item)?, key.clone()))).collect(),
        _ => bail!("the networks are a text, an array, a set or an object"),
    }
}

fn network_of(item: &Value) -> Result<&str> {
    match item {
        Value::String(written) => Ok(written),
        Value::Array(parts) => match parts.iter().next() {
            Some(Value::String(written)) => Ok(written),
            _ => bail!("an array among the networks begins with a text"),
        },
        _ => bail!("an element is a text, or an array that begins with one"),
    }
}

/// The smallest set of networks that covers the same addresses. OPA widens an address without
/// prefix to its class of 1981, and goes wrong on IPv6 networks that begin with a zero byte and on
/// lists of both families: those fail here.
pub fn cidr_merge(params: &[Value]) -> Result<Value> {
    let items: Vec<&Value> = match params {
        [Value::Array(items)] => items.iter().collect(),
        [Value::Set(items)] => items.iter().collect(),
        _ => bail!("an array or a set is taken"),
    };
    let mut ranges = Vec::new();
    let mut families = BTreeSet::new();
    for item in items {
        let Value::String(written) = item else { bail!("an element is a text") };
        let network = Network::parse(written)?;
        let v6 = network.bits == 128;
        if v6 && (!network.plain_v6() || network.address.0[0] == 0) {
            bail!("no IPv6 network is taken that begins with zeros or maps IPv4: {written}");
        }
        families.insert(network.bits);
        let number = |address: &Address| address.0.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
        ranges.push((number(&network.address), number(&network.last())));
    }
    if families.len() > 1 {
        bail!("the networks are IPv4 or IPv6, not both in one list");
    }
    let bits = families.first().copied().unwrap_or(32);
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let networks: BTreeSet<Value> = merged.into_iter().flat_map(|range| split(range, bits)).map(Value::from).collect();
    Ok(Value::from(networks))
}

/// The fewest networks that make up a range.
fn split((first, last): (u128, u128), bits: u32) -> Vec<String> {
    let mut networks = Vec::new();
    let mut start = first;
    loop {
        let aligned = start.trailing_zeros().min(bits);
        let mut host = aligned;
        // `end` of a network of `host` bits; 128 of them are all there are.
        let end = |host: u32| start | 1_u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
        while end(host) > last {
            host -= 1;
        }
        networks.push(format!("{}/{}", written(start, bits), bits - host));
        match end(host).checked_add(1) {
            Some(next) if next <= last => start = next,
            _ => return networks,
        }
    }
}

fn written(address: u128, bits: u32) -> String {
    match u32::try_from(address) {
        Ok(address) if bits == 32 => Ipv4Addr::from(address).to_string(),
        _ => Ipv6Addr::from(address).to_string(),
    }
}
