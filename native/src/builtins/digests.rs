//! `crypto.sha256` and `crypto.hmac.*`, after OPA's `topdown/crypto.go`: over the UTF-8 of the text,
//! in lower-case hexadecimal.

use anyhow::{anyhow, Result};
use hmac::{Hmac, KeyInit, Mac};
use regorus::Value;
use sha2::{Digest, Sha256, Sha512};

use super::encodings::hex;
use super::text;

pub fn sha256(params: &[Value]) -> Result<Value> {
    Ok(Value::from(hex(&Sha256::digest(text(params, 0)?))))
}

pub fn hmac_sha256(params: &[Value]) -> Result<Value> {
    keyed(Hmac::<Sha256>::new_from_slice(text(params, 1)?.as_bytes()), params)
}

pub fn hmac_sha512(params: &[Value]) -> Result<Value> {
    keyed(Hmac::<Sha512>::new_from_slice(text(params, 1)?.as_bytes()), params)
}

fn keyed<M: Mac, E>(key: std::result::Result<M, E>, params: &[Value]) -> Result<Value> {
    let mut mac = key.map_err(|_| anyhow!("the key has an invalid length"))?;
    mac.update(text(params, 0)?.as_bytes());
    Ok(Value::from(hex(&mac.finalize().into_bytes())))
}

/// In a time that does not depend on where the texts differ.
pub fn hmac_equal(params: &[Value]) -> Result<Value> {
    let (first, second) = (text(params, 0)?.as_bytes(), text(params, 1)?.as_bytes());
    let differences = first.iter().zip(second).fold(0_u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    Ok(Value::Bool(first.len() == second.len() && differences == 0))
}
