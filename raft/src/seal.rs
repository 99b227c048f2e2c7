//! Tokens that only this cluster can make: task tokens, page tokens (DESIGN 13).
//!
//! ```text
//! version u8 | purpose u8 | body | 16 bytes of HMAC-SHA-256 over all before
//! ```
//!
//! The body is the caller's. A token is not secret, only unforgeable; what it names is checked
//! against the state as well, since an old token stays valid in form.

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: u8 = 1;
const TAG: usize = 16;

/// What a token is for. One kind never passes for another. The numbers stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Purpose {
    /// A worker answers a task with it.
    Task = 1,
    /// The next page of a history.
    HistoryPage = 2,
    /// The next page of a list.
    ListPage = 3,
    /// The answer to a query.
    Query = 4,
}

/// Why a token is refused. Callers answer the same for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not one of this cluster's")]
pub struct Forged;

/// Seals and opens tokens with the key that group 0 holds.
#[derive(Clone)]
pub struct Sealer {
    mac: Hmac<Sha256>,
}

impl Sealer {
    /// With a key of 32 random bytes.
    pub fn new(key: &[u8; 32]) -> Sealer {
        let mut block = [0; 64];
        // What HMAC does with a key shorter than a block of its hash.
        block[..32].copy_from_slice(key);
        Sealer { mac: Hmac::new(&block.into()) }
    }

    /// Makes a token.
    pub fn seal(&self, purpose: Purpose, body: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(2 + body.len() + TAG);
        out.put_u8(VERSION);
        out.put_u8(purpose as u8);
        out.put_slice(body);
        let tag = self.mac.clone().chain_update(&out).finalize().into_bytes();
        out.put_slice(&tag[..TAG]);
        out.freeze()
    }

    /// The body of a token, if it was made by [`Sealer::seal`] with this key and purpose.
    pub fn open<'a>(&self, purpose: Purpose, token: &'a [u8]) -> Result<&'a [u8], Forged> {
        let (sealed, tag) = token.split_last_chunk::<TAG>().ok_or(Forged)?;
        let mac = self.mac.clone().chain_update(sealed);
        // Constant time: it tells nothing of how much of a guess was right.
        mac.verify_truncated_left(tag).map_err(|_| Forged)?;
        match sealed {
            [VERSION, kind, body @ ..] if *kind == purpose as u8 => Ok(body),
            _ => Err(Forged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::new(&[7; 32])
    }

    #[test]
    fn a_token_opens_to_its_body() {
        for body in [&b""[..], b"x", &[0; 500]] {
            let token = sealer().seal(Purpose::Task, body);
            assert_eq!(sealer().open(Purpose::Task, &token), Ok(body));
        }
    }

    #[test]
    fn every_changed_or_missing_byte_is_refused() {
        let token = sealer().seal(Purpose::Task, b"body");
        for at in 0..token.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut forged = token.to_vec();
                forged[at] ^= flip;
                assert_eq!(sealer().open(Purpose::Task, &forged), Err(Forged), "byte {at}");
            }
            assert_eq!(sealer().open(Purpose::Task, &token[..at]), Err(Forged), "cut at {at}");
            assert_eq!(sealer().open(Purpose::Task, &token[at + 1..]), Err(Forged));
        }
        assert_eq!(sealer().open(Purpose::Task, &[&token[..], &[0]].concat()), Err(Forged));
    }

    #[test]
    fn another_purpose_or_key_is_refused() {
        let token = sealer().seal(Purpose::Task, b"body");
        for other in [Purpose::HistoryPage, Purpose::ListPage, Purpose::Query] {
            assert_eq!(sealer().open(other, &token), Err(Forged));
        }
        assert_eq!(Sealer::new(&[8; 32]).open(Purpose::Task, &token), Err(Forged));
    }

    #[test]
    fn another_version_is_refused_though_its_mac_is_right() {
        let body = [2, Purpose::Task as u8, 9];
        let tag = sealer().mac.chain_update(body).finalize().into_bytes();
        let token = [&body[..], &tag[..TAG]].concat();
        assert_eq!(sealer().open(Purpose::Task, &token), Err(Forged));
    }

    #[test]
    fn the_format_is_pinned() {
        let token = sealer().seal(Purpose::Task, b"body");
        let text: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "0101626f64797f60d31bf0e2d57f7ce1cff7e4da96ea");
    }
}
