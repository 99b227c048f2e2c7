//! `google.rpc.Status`: what travels in the trailer `grpc-status-details-bin`.

use prost::{Message, Name};
use prost_types::Any;

/// An error with details, as gRPC encodes it.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// The gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The messages for programs, Temporal's `errordetails` among them.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

impl Status {
    /// A status with one detail.
    pub fn with_detail(code: i32, message: impl Into<String>, detail: &impl Name) -> Self {
        Self { code, message: message.into(), details: vec![any(detail)] }
    }

    /// The first detail of this type that decodes.
    pub fn detail<M: Name + Default>(&self) -> Option<M> {
        self.details.iter().find_map(|detail| detail.to_msg().ok())
    }
}

impl Name for Status {
    const NAME: &'static str = "Status";
    const PACKAGE: &'static str = "google.rpc";

    fn type_url() -> String {
        "type.googleapis.com/google.rpc.Status".to_owned()
    }
}

/// A message packed with the name of its type.
pub fn any<M: Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errordetails::{NotFoundFailure, QueryFailedFailure};

    #[test]
    fn a_detail_comes_back_by_its_type() {
        let detail = NotFoundFailure { current_cluster: "a".into(), ..Default::default() };
        let status = Status::with_detail(5, "not found", &detail);
        let read = Status::decode(&status.encode_to_vec()[..]).expect("decodes");
        assert_eq!(
            read.details[0].type_url,
            "type.googleapis.com/temporal.api.errordetails.v1.NotFoundFailure"
        );
        assert_eq!(read.detail::<NotFoundFailure>(), Some(detail));
        assert_eq!(read.detail::<QueryFailedFailure>(), None);
    }
}
