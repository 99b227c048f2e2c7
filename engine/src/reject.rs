//! A refusal that the caller caused. The engine has no other error: it does no IO.

use bytes::Bytes;
use prost::{Message, Name};

/// gRPC status codes that a rule may answer with; the numbers are gRPC's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Code {
    /// The request itself is wrong and will stay wrong.
    InvalidArgument = 3,
    /// What it names does not exist, or not any more.
    NotFound = 5,
    /// What it would create exists.
    AlreadyExists = 6,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit; trying later may help.
    ResourceExhausted = 8,
    /// The state of things forbids it.
    FailedPrecondition = 9,
    /// Given up because of something else in the same request.
    Aborted = 10,
    /// Not built.
    Unimplemented = 12,
    /// A rule was broken on our side.
    Internal = 13,
    /// Trying again is right.
    Unavailable = 14,
}

/// The first detail of a status: SDKs choose the exception by it.
#[derive(Clone, PartialEq, Debug)]
pub struct Detail {
    /// The full message name, such as `temporal.api.errordetails.v1.NotFoundFailure`.
    pub type_name: String,
    /// The encoded message.
    pub body: Bytes,
}

/// A refusal: code, message and detail exactly as Temporal gives them.
#[derive(Clone, PartialEq, Debug)]
pub struct Rejection {
    /// The gRPC code.
    pub code: Code,
    /// The text that users and tests match on.
    pub message: String,
    /// At most one detail; nothing reads a second.
    pub detail: Option<Detail>,
}

impl Rejection {
    /// A refusal without a detail.
    pub fn new(code: Code, message: impl Into<String>) -> Rejection {
        Rejection { code, message: message.into(), detail: None }
    }

    /// INVALID_ARGUMENT.
    pub fn invalid(message: impl Into<String>) -> Rejection {
        Rejection::new(Code::InvalidArgument, message)
    }

    /// NOT_FOUND, without a detail.
    pub fn not_found(message: impl Into<String>) -> Rejection {
        Rejection::new(Code::NotFound, message)
    }

    /// UNIMPLEMENTED for a request field that is not built yet, named.
    pub fn unbuilt(field: &str) -> Rejection {
        Rejection::new(Code::Unimplemented, format!("{field} is not implemented"))
    }

    /// The same refusal with `detail` attached.
    pub fn with<M: Message + Name>(mut self, detail: &M) -> Rejection {
        self.detail =
            Some(Detail { type_name: M::full_name(), body: Bytes::from(detail.encode_to_vec()) });
        self
    }
}
