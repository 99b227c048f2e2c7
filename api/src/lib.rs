//! The doors: gRPC, the command line, telemetry, and the server that joins them to a node.
//!
//! A handler turns a request into an [`holdfast_engine::Input`] and a reply into a response; it
//! decides nothing. Map: `cli` is the command line, `dynamic_config` the switches it takes,
//! `server` builds the node and serves it, `connections` and `transport` are what
//! every peer and every call pass first, `grpc/` has one file per family of RPCs, `errors` is
//! the only place where a refusal becomes a gRPC status.

pub mod cli;
mod connections;
pub mod dynamic_config;
pub mod errors;
pub mod grpc;
pub mod server;
pub mod telemetry;
mod transport;

/// The services that tonic generates, server and client side.
#[expect(clippy::allow_attributes, clippy::too_many_lines, reason = "generated")]
pub mod service {
    /// `temporal.api.workflowservice.v1`.
    pub mod workflow {
        include!(concat!(env!("OUT_DIR"), "/temporal.api.workflowservice.v1.rs"));
    }
    /// `temporal.api.operatorservice.v1`.
    pub mod operator {
        include!(concat!(env!("OUT_DIR"), "/temporal.api.operatorservice.v1.rs"));
    }
}
