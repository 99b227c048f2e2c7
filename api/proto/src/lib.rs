//! Temporal's API messages, and the little of protobuf's vocabulary that every crate shares.
//!
//! The messages are generated at build time from the descriptors that the crate
//! `temporalio-protos` publishes; none of Temporal's `.proto` files is copied here. `bytes` fields
//! are [`bytes::Bytes`], maps are `BTreeMap`, the well-known types are those of `prost-types`, and
//! nothing is marked deprecated. They stand under their full names in [`temporal`] and, for
//! everyday use, under short ones: [`common`], [`history`], [`workflowservice`], ...
//!
//! Bodies that users fill are opaque: [`common::Payload`], [`common::Payloads`],
//! [`common::Header`], [`common::Memo`] and [`failure::Failure`] keep the bytes they came in. They
//! are checked by [`walk`] as they are decoded, and opened into [`decoded`] where a rule must look
//! inside.

mod opaque;
mod status;
mod time;
pub mod walk;

pub use status::{Status, any};
pub use time::{InvalidDuration, duration, duration_nanos, nanos, timestamp};
pub use walk::{MAX_DEPTH, WalkError};

/// The descriptors of all messages and services here and of what they import, encoded as a
/// `google.protobuf.FileDescriptorSet`.
pub static FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Declares the module of a generated package: `v1` inside its name, as other packages expect it.
macro_rules! package {
    ($name:ident $(, $opaque:ident)*) => {
        pub mod $name {
            pub mod v1 {
                $(pub use crate::opaque::$opaque;)*
                include!(concat!(env!("OUT_DIR"), "/temporal.api.", stringify!($name), ".v1.rs"));
            }
        }
    };
}

/// Temporal's packages under their full names.
#[expect(missing_docs, clippy::large_enum_variant, clippy::too_many_lines, reason = "generated")]
pub mod temporal {
    pub mod api {
        package!(activity);
        package!(batch);
        package!(callback);
        package!(command);
        package!(common, Header, Memo, Payload, Payloads);
        package!(compute);
        package!(deployment);
        package!(enums);
        package!(errordetails);
        package!(failure, Failure);
        package!(filter);
        package!(history);
        package!(namespace);
        package!(nexus);
        package!(nexusoperation);
        package!(operatorservice);
        package!(protocol);
        package!(query);
        package!(replication);
        package!(rules);
        package!(schedule);
        package!(sdk);
        package!(taskqueue);
        package!(update);
        package!(version);
        package!(worker);
        package!(workflow);
        package!(workflowservice);

        pub mod nexusservices {
            pub mod workerservice {
                pub mod v1 {
                    include!(concat!(
                        env!("OUT_DIR"),
                        "/temporal.api.nexusservices.workerservice.v1.rs"
                    ));
                }
            }
        }
    }
}

pub use temporal::api::activity::v1 as activity;
pub use temporal::api::batch::v1 as batch;
pub use temporal::api::callback::v1 as callback;
pub use temporal::api::command::v1 as command;
pub use temporal::api::common::v1 as common;
pub use temporal::api::compute::v1 as compute;
pub use temporal::api::deployment::v1 as deployment;
pub use temporal::api::enums::v1 as enums;
pub use temporal::api::errordetails::v1 as errordetails;
pub use temporal::api::failure::v1 as failure;
pub use temporal::api::filter::v1 as filter;
pub use temporal::api::history::v1 as history;
pub use temporal::api::namespace::v1 as namespace;
pub use temporal::api::nexus::v1 as nexus;
pub use temporal::api::nexusoperation::v1 as nexusoperation;
pub use temporal::api::nexusservices::workerservice::v1 as workerservice;
pub use temporal::api::operatorservice::v1 as operatorservice;
pub use temporal::api::protocol::v1 as protocol;
pub use temporal::api::query::v1 as query;
pub use temporal::api::replication::v1 as replication;
pub use temporal::api::rules::v1 as rules;
pub use temporal::api::schedule::v1 as schedule;
pub use temporal::api::sdk::v1 as sdk;
pub use temporal::api::taskqueue::v1 as taskqueue;
pub use temporal::api::update::v1 as update;
pub use temporal::api::version::v1 as version;
pub use temporal::api::worker::v1 as worker;
pub use temporal::api::workflow::v1 as workflow;
pub use temporal::api::workflowservice::v1 as workflowservice;

/// The opaque bodies opened, one level deep: a [`decoded::Memo`] is a map of opaque payloads, a
/// [`decoded::Failure`] has an opaque cause. So opening never recurses, and what a rule does not
/// touch keeps its bytes.
#[expect(missing_docs, reason = "generated")]
pub mod decoded {
    include!(concat!(env!("OUT_DIR"), "/decoded.rs"));
}
