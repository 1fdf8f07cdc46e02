//! `base64.*`, `base64url.*`, `hex.*`, `json.unmarshal` and `io.jwt.decode`, after OPA's
//! `topdown/encoding.go` and `tokens.go`. Go's texts may hold any bytes; what is no UTF-8 fails here.

use anyhow::{anyhow, bail, Result};
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use regorus::Value;

use super::text;
use crate::bounds;
use crate::convert::from_json;

/// A token within a token within a token is enough.
const MAX_NESTED: usize = 4;

/// Go's decoder: padding is required, the bits beyond the last byte are not looked at.
fn codec(alphabet: &Alphabet, padded: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(padded)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(alphabet, config)
}

/// Go's decoder passes over line breaks anywhere.
fn decoded(alphabet: &Alphabet, encoded: &str) -> Result<Vec<u8>> {
    let joined: String = encoded.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    codec(alphabet, true).decode(joined).map_err(|_| anyhow!("the text is not base64"))
}

/// OPA adds the padding that a text lacks, counting its line breaks as letters.
fn url_decoded(encoded: &str) -> Result<Vec<u8>> {
    let padding = match encoded.len() % 4 {
        _ if encoded.ends_with('=') => "",
        0 => "",
        2 => "==",
        3 => "=",
        _ => bail!("the text is not base64url"),
    };
    decoded(&URL_SAFE, &format!("{encoded}{padding}"))
}

fn utf8(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| anyhow!("what was encoded is no text"))
}

fn encoded(codec: &GeneralPurpose, plain: &str) -> Result<Value> {
    bounds::text_of(plain.len().div_ceil(3).saturating_mul(4))?;
    Ok(Value::from(codec.encode(plain)))
}

pub fn base64_encode(params: &[Value]) -> Result<Value> {
    encoded(&codec(&STANDARD, true), text(params, 0)?)
}

pub fn base64_decode(params: &[Value]) -> Result<Value> {
    Ok(Value::from(utf8(decoded(&STANDARD, text(params, 0)?)?)?))
}

pub fn base64_is_valid(params: &[Value]) -> Result<Value> {
    Ok(Value::Bool(text(params, 0).is_ok_and(|encoded| decoded(&STANDARD, encoded).is_ok())))
}

pub fn base64url_encode(params: &[Value]) -> Result<Value> {
    encoded(&codec(&URL_SAFE, true), text(params, 0)?)
}

pub fn base64url_encode_no_pad(params: &[Value]) -> Result<Value> {
    encoded(&codec(&URL_SAFE, false), text(params, 0)?)
}

pub fn base64url_decode(params: &[Value]) -> Result<Value> {
    Ok(Value::from(utf8(url_decoded(text(params, 0)?)?)?))
}

pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| char::from(DIGITS[usize::from(four & 15)]);
    let mut written = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        written.push(digit(byte >> 4));
        written.push(digit(*byte));
    }
    written
}

pub fn hex_encode(params: &[Value]) -> Result<Value> {
    let plain = text(params, 0)?;
    bounds::text_of(plain.len().saturating_mul(2))?;
    Ok(Value::from(hex(plain.as_bytes())))
}

pub fn hex_decode(params: &[Value]) -> Result<Value> {
    let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = text(params, 0)?.chars().map(digit).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(Value::from(utf8(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())?))
        }
        _ => bail!("the text is not pairs of hexadecimal digits"),
    }
}

/// Fails on fractions, integers beyond 64 bits and keys that stand twice, as every document here.
pub fn json_unmarshal(params: &[Value]) -> Result<Value> {
    let document = text(params, 0)?;
    bounds::json_of(document)?;
    from_json(document.as_bytes()).map_err(|why| anyhow!(why))
}

pub fn jwt_decode(params: &[Value]) -> Result<Value> {
    let encoded = text(params, 0)?;
    bounds::json_of(encoded)?;
    token(encoded, MAX_NESTED)
}

/// Header, payload and signature in hexadecimal; nothing is verified (RFC 7519, 7.2).
fn token(encoded: &str, nested: usize) -> Result<Value> {
    let parts: Vec<&str> = encoded.split('.').collect();
    let [header, payload, signature] = parts[..] else { bail!("a token has three parts") };
    let header = object(&url_decoded(header)?)?;
    if !matches!(header["enc"], Value::Undefined) {
        bail!("the token is encrypted");
    }
    let payload = url_decoded(payload)?;
    match &header["cty"] {
        Value::Undefined => {}
        Value::String(kind) if kind.as_ref() == "JWT" => {
            let left = nested.checked_sub(1).ok_or_else(|| anyhow!("tokens nested deeper than {MAX_NESTED}"))?;
            return token(utf8(payload)?.trim_matches(['"', '\'']), left);
        }
        Value::String(_) => {}
        _ => bail!("the token's content type is no text"),
    }
    Ok(Value::from(vec![header, object(&payload)?, Value::from(hex(&url_decoded(signature)?))]))
}

fn object(json: &[u8]) -> Result<Value> {
    match from_json(json) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => bail!("a part of the token is no JSON object"),
        Err(why) => bail!("a part of the token cannot be read: {why}"),
    }
}
